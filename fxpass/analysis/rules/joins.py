"""Joins: `cat` along an axis with an extent gathers the valid rows, which lie apart in the full buffers.

cat([past[:, :n], new], 1)      {1: n} of past, 4 new rows     ->      index_select(cat([past, new], 1), 1, places)

places = [0 .. n - 1, S .. S + 3, anything]       one for each row of a buffer with room for all of them, n + 4 <= S,
                                                 or of all parts together

A result of as many rows at any position is all valid: cat([k[:, e:8], k[:, :e]], 1)
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extent, Extents, Flow, rule
from fxpass.analysis.resizing import new_axis
from fxpass.errors import Refusal
from fxpass.graph.bounds import size_of
from fxpass.graph.numbers import equal, fixed, known

aten = torch.ops.aten


@rule(aten.cat)
def cat(node: fx.Node, flow: Flow) -> Extents:
    parts: list[Any] = list(node.args[0])  # type: ignore[arg-type]
    dim = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % node.meta["val"].dim()
    if any(p.meta["val"].dim() != node.meta["val"].dim() for p in parts):
        raise Refusal(reasons.JOINED, how="beside an empty tensor of another rank")
    others = flow.merge(*({d: e for d, e in flow.of(p).items() if d != dim} for p in parts))
    for part in parts:
        if any(d not in flow.of(part) for d in others):
            raise Refusal(reasons.FROM_ELSEWHERE, what="a part of a join")
    own = [flow.of(p).get(dim) for p in parts]
    if not any(own):
        return others
    lengths = [e.length if e is not None else size_of(p, dim, node) for e, p in zip(own, parts, strict=True)]
    ends = [lengths[0]]
    for length in lengths[1:]:
        ends.append(flow.derive(node, operator.add, ends[-1], length))
    count = fixed(node.meta["val"].shape[dim])
    if count is not None:
        flow.replace(node, lambda b: _joined(b, parts, dim, own, ends, count))
        return others
    found = [e for e in own if e is not None]
    room = flow.within(ends[-1], known)  # without a guard: all parts together always have room
    if room is None:
        full: Any = 0
        for e, part in zip(own, parts, strict=True):
            full = flow.derive(node, operator.add, full, size_of(part, dim, node) if e is None else e.full)
        extent = new_axis(flow, ends[-1], full, *found)
    else:
        extent = new_axis(flow, ends[-1], room.full, room, *found)
    flow.replace(node, lambda b: _joined(b, parts, dim, own, ends, b.full(extent)))
    return {**others, dim: extent}


def _joined(b: Any, parts: list[Any], dim: int, own: list[Extent | None], ends: list[Any], count: Any) -> fx.Node:
    """The valid rows of all parts, gathered from the `cat` of the parts at full size, in a tensor of ``count`` rows."""
    device = parts[0].meta["val"].device
    places = b.call(aten.arange.default, count, device=device)
    sizes = [b.full(e) if e is not None else b.size(p, dim) for e, p in zip(own, parts, strict=True)]
    chosen: Any = places
    offset: Any = 0
    for size, end in zip(sizes[:-1], ends[:-1], strict=True):
        offset = b.arithmetic(operator.add, offset, size)
        moved = b.call(aten.add.Tensor, b.call(aten.sub.Tensor, places, b.twin(end, device)), offset)
        chosen = b.call(aten.where.self, b.call(aten.ge.Tensor, places, b.tensor(end, device)), moved, chosen)
    last = b.arithmetic(operator.sub, b.arithmetic(operator.add, offset, sizes[-1]), 1)
    return b.call(
        aten.index_select.default,
        b.call(aten.cat.default, parts, dim),
        dim,
        b.call(aten.clamp_max.default, chosen, last),
    )


@rule(aten.stack)
def stack(node: fx.Node, flow: Flow) -> Extents:
    parts: list[Any] = list(node.args[0])  # type: ignore[arg-type]
    dim = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) % node.meta["val"].dim()
    out = flow.merge(*(flow.of(p) for p in parts))
    if any(not equal(p.meta["val"].shape[d], e.length) or d not in flow.of(p) for p in parts for d, e in out.items()):
        raise Refusal(reasons.FROM_ELSEWHERE, what="a part of a join")
    return {d + (d >= dim): e for d, e in out.items()}
