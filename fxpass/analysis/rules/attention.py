"""Scaled dot product attention: keys past the valid length are masked, and the rows of keys and values there are filled with 0.

    sdpa(q, k[:end], v[:end])             ->   sdpa(q, clean(k), clean(v), attn_mask=valid)
    sdpa(q, k[:end], v[:end], mask)       ->   sdpa(q, clean(k), clean(v), attn_mask=mask & valid)        bool mask
    sdpa(q, k[:end], v[:end], bias)       ->   sdpa(..., attn_mask=where(valid, bias, -inf))              float mask
    sdpa(..., is_causal=True)             ->   valid = arange(S) < end and arange(S) <= arange(L)[:, None]

`is_causal` is aligned to the top left of the sliced length, as in eager: query i sees key j if j <= i. ``clean`` fills the
invalid rows with 0, those of K too, since a NaN there would make the scores NaN even under a mask.

The elements of a batch, ``sdpa(q[on], k[on], v[on])``, do not see each other: those that are not valid may hold anything.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.marks import Attention
from fxpass.graph.schemas import arguments_by_name

from .alignment import check_aligned

aten = torch.ops.aten
_SDPA = aten.scaled_dot_product_attention.default


@rule(_SDPA)
def scaled_dot_product_attention(node: fx.Node, flow: Flow) -> Extents:
    given = arguments_by_name(node)
    q, k, v, mask = given["query"], given["key"], given["value"], given.get("attn_mask")
    rank = q.meta["val"].dim()
    if given.get("dropout_p", 0.0):
        raise Refusal(reasons.DRAWS, op="attention with dropout")
    ek, ev = flow.of(k).get(rank - 2), flow.of(v).get(rank - 2)
    out = {**flow.of(q), **_batch(node, flow, (q, k, v), rank - 2 - bool(given.get("enable_gqa", False)))}
    if mask is not None:
        _check_mask_rows(mask, out, rank, flow)
    if ek is None and ev is None and (mask is None or mask.meta["val"].dim() - 1 not in flow.of(mask)):
        return out
    if ek is None or ev is None or not ek.same(ev):
        raise Refusal(reasons.LENGTHS, what="the keys and the values of attention")
    if mask is not None:
        columns = flow.of(mask).get(mask.meta["val"].dim() - 1)
        if columns is not None:
            flow.merge({0: ek}, {0: columns})
        elif not isinstance(width := mask.meta["val"].shape[-1], int) or width != 1:
            raise Refusal(reasons.FROM_ELSEWHERE, what="the mask of attention")
    flow.fill(node, k, [rank - 2], 0)
    flow.fill(node, v, [rank - 2], 0)
    scale = given.get("scale")
    rest = {n: given[n] for n in ("scale", "enable_gqa") if n in given}

    def build(b: Any) -> fx.Node:
        keys, values = b.operand(node, k), b.operand(node, v)
        joined = b.attention_mask(ek, mask, q, bool(given.get("is_causal", False)))
        made = b.call(_SDPA, q, keys, values, attn_mask=joined, **rest)
        b.marks.attentions[made] = Attention(
            keys=b.current(k),
            values=b.current(v),
            length=b.twin(ek.length, q.meta["val"].device),
            mask=None if mask is None else b.current(mask),
            is_causal=bool(given.get("is_causal", False)),
            scale=q.meta["val"].shape[-1] ** -0.5 if scale is None else scale,
        )
        return made

    flow.replace(node, build)
    return out


def _batch(node: fx.Node, flow: Flow, operands: tuple[fx.Node, ...], count: int) -> Extents:
    """The extents on the first ``count`` dims of ``operands``. Attention works on each element of these by itself.

    Raises:
        Refusal: an operand has an extent on another dim than these and its rows, or lacks one that another has.
    """
    rank = node.meta["val"].dim()
    if any(operand.meta["val"].dim() != rank for operand in operands):
        count = 0
    if any(d >= count and d != rank - 2 for operand in operands for d in flow.of(operand)):
        raise Refusal(reasons.OTHER_AXIS, op="attention", what="heads or channels")
    batch = flow.merge(*({d: e for d, e in flow.of(operand).items() if d < count} for operand in operands))
    for operand in operands:
        check_aligned(node, flow, operand, batch)
    return batch


def _check_mask_rows(mask: Any, result: Extents, rank: int, flow: Flow) -> None:
    """Check that the mask has an extent on its rows, and on each dim of the batch, if, and only if, the ``result`` has one.

    Raises:
        Refusal: only one of them has an extent.
    """
    shape, shift = mask.meta["val"].shape, rank - mask.meta["val"].dim()
    for dim, size in list(enumerate(shape))[:-1]:
        rows, queries = flow.of(mask).get(dim), result.get(dim + shift)
        if isinstance(size, int) and size == 1 and rows is None:
            continue
        if (rows is None) != (queries is None) or (rows is not None and queries is not None and not rows.same(queries)):
            raise Refusal(reasons.LENGTHS, what="the mask and the queries of attention")
