"""``kvfix::decode_attention``: attention of few queries over the valid part of a cache.

Its cost grows with the number of valid keys, not with the capacity. The keys are cut into parts, one for each program, so that
all processors have work even where there are few heads; a second kernel joins the parts. All keys of a small buffer are one
block, which is fetched before the length is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.library import custom_op

from fxpass.graph.numbers import hint
from fxpass.kernels.functions.pointwise import function
from fxpass.kernels.launches.launch import Launch, gpu, is_recording
from fxpass.kernels.launches.limits import MAX_LEAVES
from fxpass.kernels.launches.recorded_inputs import is_input

from .online_softmax import GRAIN, attend, join

ARGUMENTS = tuple(f"p{i}" for i in range(MAX_LEAVES)) + ("i0", "i1", "i2", "i3")
"""The parameters of a function that computes an element: the leaves, and its place."""
AT_ONCE = 8192
"""A buffer is small if it has at most this many elements for each head."""


@custom_op("kvfix::decode_attention", mutates_args=())
def decode_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    length: torch.Tensor | None,
    mask: torch.Tensor | None,
    is_causal: bool,
    scale: float,
    nans: bool = False,
) -> torch.Tensor:
    """Scaled dot product attention of few queries over the first ``length`` keys.

    Args:
        q: (batch, heads, queries, dim) on CUDA, few queries, dim a power of two from 16 to 256.
        k, v: (batch, key heads, size, dim), same dtype; what lies at and after ``length`` is not read. Key heads divide
            heads.
        length: 0-d int64; None if all keys are valid.
        mask: None, or broadcastable to (batch, heads, queries, size): bool (True is seen) or additive.
        is_causal: query i sees no key after key i.
        scale: factor on the scores.
        nans: whether a query that sees none of the valid keys gets NaN, as from a softmax that is written out, not zeros.

    Returns:
        (batch, heads, queries, dim), contiguous, same dtype, accumulated in float32.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    for step in launches(q, k, v, length, mask, is_causal, scale, nans, out):
        step.run()
    return out


@decode_attention.register_fake
def _(q: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
    return q.new_empty(q.shape)


@custom_op("kvfix::write_and_attend", mutates_args={"k", "v"})
def write_and_attend(
    leaves: Sequence[torch.Tensor],
    query: str,
    key: str,
    value: str,
    heads: int,
    slots: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    length: torch.Tensor | None,
    mask: torch.Tensor | None,
    is_causal: bool,
    scale: float,
    nans: bool = False,
    early: bool = False,
) -> torch.Tensor:
    """`decode_attention` of one query, of which the key and the value are first written to ``k`` and ``v``.

    Args:
        leaves: at most `MAX_LEAVES`, floating point, on CUDA.
        query, key, value: the texts of functions that compute an element from ``leaves``, see `element_functions`.
        heads: the number of heads of the query.
        slots: (1,) int64, the row of ``k`` and ``v`` to write. One that they do not have is not written.
        early: whether no other op of the graph writes to ``k`` and ``v``, which are inputs of it: what they hold is then read
            before the preceding ops are done.
    """
    out = k.new_empty((k.shape[0], heads, 1, k.shape[3]))
    dense = [leaf.contiguous() for leaf in leaves]
    for step in launches_of_own(dense, query, key, value, heads, slots, k, v, length, mask, is_causal, scale, nans, early, out):
        step.run()
    return out


@write_and_attend.register_fake
def _(leaves: Any, query: str, key: str, value: str, heads: int, slots: Any, k: Tensor, *others: Any, **more: Any) -> Tensor:
    return k.new_empty((k.shape[0], heads, 1, k.shape[3]))


class Own(NamedTuple):
    """What the kernel computes the query from, and the row that it writes."""

    leaves: Sequence[Tensor]
    texts: Sequence[str]
    slots: Tensor
    early: bool


def launches_of_own(
    leaves: Sequence[Tensor],
    query: str,
    key: str,
    value: str,
    heads: int,
    slots: Tensor,
    k: Tensor,
    v: Tensor,
    length: Tensor | None,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
    nans: bool = False,
    early: bool = False,
    out: Tensor | None = None,
) -> list[Launch]:
    """`launches` of `write_and_attend`."""
    ahead = early and is_recording(k.device) and is_input(k) and is_input(v)
    q = k.new_empty((k.shape[0], heads, 1, k.shape[3])) if out is None else out
    return launches(q, k, v, length, mask, is_causal, scale, nans, out, Own(leaves, (query, key, value), slots, ahead))


def launches(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    length: Tensor | None,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
    nans: bool = False,
    out: Tensor | None = None,
    own: Own | None = None,
) -> list[Launch]:
    """The launches of the kernels. Without ``out`` they are made to be compiled, not to be run."""
    cut, group, options = _cut(q, k, own), q.shape[1] // k.shape[1], gpu(q.device).options
    length, whole = (q, True) if length is None else (length, False)
    seen = q if mask is None else mask.expand(*q.shape[:3], k.shape[2])
    out = q.new_empty(q.shape) if out is None else out
    part, top, norm = out, out, out
    if cut.parts > 1:
        part = q.new_empty((cut.parts, *q.shape), dtype=torch.float32)
        top, norm = (q.new_empty((cut.parts, *q.shape[:-1]), dtype=torch.float32) for _ in range(2))
    leaves = [q] * MAX_LEAVES if own is None else [*own.leaves, *[own.slots] * (MAX_LEAVES - len(own.leaves))]
    slots, early = (q, 0) if own is None else (own.slots, int(own.early))
    functions = [None] * 3 if own is None else [function(text, ARGUMENTS) for text in own.texts]
    steps = [
        Launch(
            attend,
            cut.programs * cut.parts,
            (q, k, v, length, seen, part, top, norm, k.shape[1], group, q.shape[2], hint(k.shape[2]), cut.tiles)
            + (*q.stride(), *k.stride(), *v.stride(), *seen.stride(), *leaves, slots, early),
            {
                **dict(zip(("QUERY", "KEY", "VALUE"), functions, strict=True)),
                "SCALE": scale,
                "MASK": 0 if mask is None else 1 if mask.dtype is torch.bool else 2,
                "CAUSAL": is_causal,
                "D": q.shape[3],
                "ROWS": cut.rows,
                "BLOCK": cut.block,
                "PARTS": cut.parts,
                "ONCE": cut.once,
                "LINES": max(1, q.shape[3] * q.element_size() // 128),
                "WHOLE": whole,
                "NANS": nans,
                "PRECISION": "tf32x3" if q.dtype is torch.float32 else "tf32",
                **{"num_warps": cut.warps, "num_stages": 2, **options},
            },
        )
    ]
    if cut.parts > 1:
        numbers = {"D": q.shape[3], "PARTS": cut.parts, "ROUND": triton.next_power_of_2(cut.parts)}
        known = {"WHOLE": whole, "NANS": nans, "num_warps": 2, **options}
        rows = q.shape[0] * q.shape[1] * q.shape[2]
        steps.append(Launch(join, rows, (part, top, norm, length, out), {**numbers, **known}))
    return steps


class _Cut(NamedTuple):
    """How attention is cut into programs.

    The queries that share a head of the keys are cut into ``tiles`` of ``rows`` rows. A program of ``warps`` warps takes one
    of them and one of ``parts`` parts of the keys, ``block`` keys at a time, or all of them at ``once``. There are ``programs``
    programs for each part.
    """

    rows: int
    tiles: int
    block: int
    warps: int
    programs: int
    parts: int
    once: bool


def _cut(q: Tensor, k: Tensor, own: Own | None) -> _Cut:
    dim, shared, size = q.shape[3], q.shape[1] // k.shape[1] * q.shape[2], hint(k.shape[2])
    device = gpu(q.device)
    rows = min(triton.next_power_of_2(shared), 64 if dim <= 128 else 32)
    rows = rows if rows == 1 else max(rows, 8)
    block, warps = _block(rows, dim, size, q.element_size())
    tiles = triton.cdiv(shared, rows)
    programs = q.shape[0] * k.shape[1] * tiles
    parts = max(1, min(triton.cdiv(size, GRAIN.value), device.processors // programs)) if size > 2 * block else 1
    once = parts == 1 and rows <= 16 and size * dim <= AT_ONCE
    if once:
        block = max(16, triton.next_power_of_2(size))
        warps = 8 if 2 * block * dim > AT_ONCE and own is None else 4
    return _Cut(rows, tiles, block, warps, programs, parts, once)


def _block(rows: int, dim: int, size: int, element_size: int) -> tuple[int, int]:
    """How many keys a program takes at a time, and its number of warps: the fastest that were measured on an H100."""
    elements, warps = 4096, 4
    if rows > 16:
        elements, warps = (2048, 4) if element_size == 4 else (8192, 8)
    return max(16, min(triton.next_power_of_2(size), elements // dim)), warps
