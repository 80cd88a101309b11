"""Lookups by an index tensor: the invalid part of the index may hold anything, so it is filled with 0.

embedding(table, distance)          {1: e} of distance     ->     embedding(table, masked_fill(distance, invalid, 0))
index_select(mask, 0, rows)         {1: e} of mask passes
index_select(k, 1, rows)            {1: e} of k            ->     _assert_async(all(rows < e)), index_select(k, 1, rows)

In the last line, eager raises an error for an index past the valid rows. Without the slice, only an index past the buffer would
raise one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extent, Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, number

from .alignment import check_aligned

aten = torch.ops.aten


@rule(aten.embedding)
def embedding(node: fx.Node, flow: Flow) -> Extents:
    weight, indices = node.args[:2]
    if 1 in flow.of(weight):
        raise Refusal(reasons.LOOKUP, how="in a table of embeddings whose width depends on the position")
    flow.fill(node, indices, flow.of(indices), 0)
    _checked(node, flow, indices, flow.of(weight).get(0))
    return dict(flow.of(indices))


@rule(aten.index_select)
def index_select(node: fx.Node, flow: Flow) -> Extents:
    x, dim, index = node.args
    if not x.meta["val"].dim():  # type: ignore[union-attr]
        raise Refusal(reasons.LOOKUP, how="in a tensor without dims")
    dim %= node.meta["val"].dim()  # type: ignore[operator]
    flow.fill(node, index, flow.of(index), 0)
    _checked(node, flow, index, flow.of(x).get(dim))
    out = {d: e for d, e in flow.of(x).items() if d != dim}
    for extent in flow.of(index).values():
        out[dim] = extent
    return out


@rule(aten.gather)
def gather(node: fx.Node, flow: Flow) -> Extents:
    x, dim, index = node.args[:3]
    dim %= node.meta["val"].dim()  # type: ignore[operator]
    own, shape = flow.of(index), index.meta["val"].shape  # type: ignore[union-attr]
    for d, extent in flow.of(x).items():
        wanted = own[d].length if d in own else shape[d]
        if d != dim and not guarded(number(wanted) <= number(extent.length)):
            raise Refusal(reasons.LOOKUP, how="of more than is valid")
    for d, extent in own.items():
        there = flow.of(x)[d].full_size if d in flow.of(x) else x.meta["val"].shape[d]  # type: ignore[union-attr]
        if d != dim and not guarded(number(extent.full_size) <= number(there)):
            raise Refusal(reasons.LOOKUP, how="in a tensor that is as long as what is valid")
    flow.fill(node, index, own, 0)
    _checked(node, flow, index, flow.of(x).get(dim))
    return dict(own)


@rule(aten.index.Tensor)
def index(node: fx.Node, flow: Flow) -> Extents:
    """``x[..., rows, :]`` with index tensors for adjacent dims. A negative index counts from the end of the valid part."""
    x, indices = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    used = [d for d, i in enumerate(indices) if i is not None]
    if any(i.meta["val"].dtype in (torch.bool, torch.uint8) for i in indices if i is not None):
        raise Refusal(reasons.LOOKUP, how="with a boolean mask")
    if used != list(range(used[0], used[-1] + 1)):
        raise Refusal(reasons.LOOKUP, how="along dims that are not next to each other")
    rank = max(indices[d].meta["val"].dim() for d in used)
    shifts = {d: used[0] + rank - indices[d].meta["val"].dim() for d in used}
    out: Extents = {}
    for d, shift in shifts.items():
        flow.fill(node, indices[d], flow.of(indices[d]), 0)
        out = flow.merge(out, {shift + own: e for own, e in flow.of(indices[d]).items()})
    for d, shift in shifts.items():
        check_aligned(node, flow, indices[d], [dim - shift for dim in out if dim >= shift])
    checked = {d: flow.of(x)[d] for d in used if d in flow.of(x)}
    if checked:
        flow.replace(node, lambda b: _indexed(b, node, x, indices, checked))
    passed = {d if d < used[0] else d + rank - len(used): e for d, e in flow.of(x).items() if d not in used}
    return {**passed, **out}


def _checked(node: fx.Node, flow: Flow, index: Any, extent: Extent | None) -> None:
    """Ask for an assertion that the lookup ``node`` stays within the valid rows of ``extent``, as eager checks."""
    if extent is None:
        return

    def build(b: Any) -> fx.Node:
        b.check_index(b.operand(node, index), extent, index)
        args, kwargs = b.arguments(node)
        return b.call(node.target, *args, **kwargs)

    flow.replace(node, build)


def _indexed(b: Any, node: fx.Node, x: Any, indices: list[Any], checked: Extents) -> fx.Node:
    return b.call(node.target, x, places_from_the_front(b, node, indices, checked))


def places_from_the_front(b: Any, node: fx.Node, indices: list[Any], checked: Extents) -> list[Any]:
    """``indices``, one or None for each dim, as places that count from the first row. A negative index counts from the end of
    the valid part. Places are asserted to lie in the extents ``checked``."""
    chosen = [None if i is None else b.operand(node, i) for i in indices]
    for d, extent in checked.items():
        b.check_index(chosen[d], extent, indices[d], first=-1)
        length = b.twin(extent.length, indices[d].meta["val"].device)
        from_the_end = b.call(aten.add.Tensor, chosen[d], length)
        chosen[d] = b.call(aten.where.self, b.call(aten.lt.Scalar, chosen[d], 0), from_the_end, chosen[d])
    return chosen
