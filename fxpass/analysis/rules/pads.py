"""Padding along the axis, with a number or with rows of the tensor: the valid part gets longer at both ends.

    pad(k, [0, 0, 1, 2])                    {2: e}      ->      row i is row i - 1, and 0 where i < 1 or i > e
    pad(k, [0, 0, 0, S - e])                {2: e}      ->      row i is row i, and 0 where i >= e: of S rows, all valid
    pad(k, [1, 2], mode="replicate")        {2: e}      ->      row i is row clamp(i - 1, 0, e - 1)
    pad(k, [1, 2], mode="reflect")          {2: e}      ->      row i is row |i - 1|, counted back from e - 1 if beyond

A negative amount takes rows away.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extent, Extents, Flow, rule
from fxpass.analysis.resizing import resized
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, number

from .places import Count, less, minus, plus, rows, valid_length

aten = torch.ops.aten
_Place = Callable[[Any, fx.Node, fx.Node], fx.Node]
_ADDED = "which is how many rows are added"


@rule(aten.constant_pad_nd.default)
def constant(node: fx.Node, flow: Flow) -> Extents:
    x, amounts, value = (*node.args, 0)[:3]

    def rest(b: Any, made: fx.Node, left: list[int]) -> fx.Node:
        return b.call(aten.constant_pad_nd.default, made, left, value)

    def outside(b: Any, made: fx.Node, dim: int, before: Count, extent: Extent, count: Any) -> fx.Node:
        """Whether each row lies before the first row or after the last one of ``x``."""
        steps = b.call(aten.arange.default, count, device=x.meta["val"].device)
        end = plus(b, valid_length(b, extent, x), before)
        first = b.call(aten.ge.Scalar if isinstance(before, int) else aten.ge.Tensor, steps, before)
        inside = b.call(aten.logical_and.default, first, b.call(aten.lt.Tensor, steps, end))
        other = b.call(aten.scalar_tensor.default, value, dtype=x.meta["val"].dtype, device=x.meta["val"].device)
        return b.call(aten.where.self, b.along(inside, x.meta["val"].dim(), dim), made, other)

    return _padded(node, flow, x, list(amounts), lambda b, i, length: i, rest, outside)


@rule(aten.replication_pad1d.default, aten.replication_pad2d.default, aten.replication_pad3d.default)
def replication(node: fx.Node, flow: Flow) -> Extents:
    def place(b: Any, i: fx.Node, length: fx.Node) -> fx.Node:
        return b.call(aten.minimum.default, b.call(aten.clamp_min.default, i, 0), plus(b, length, -1))

    return _padded_by_itself(node, flow, place)


@rule(aten.reflection_pad1d.default, aten.reflection_pad2d.default, aten.reflection_pad3d.default)
def reflection(node: fx.Node, flow: Flow) -> Extents:
    def place(b: Any, i: fx.Node, length: fx.Node) -> fx.Node:
        last = plus(b, length, -1)
        back = b.call(aten.abs.default, minus(b, last, b.call(aten.abs.default, i)))
        return minus(b, last, back)

    return _padded_by_itself(node, flow, place)


def _padded_by_itself(node: fx.Node, flow: Flow, place: _Place) -> Extents:
    x, amounts = node.args
    rank, spatial = x.meta["val"].dim(), len(amounts) // 2
    own = {d: e for d, e in flow.of(x).items() if d >= rank - spatial}
    if not all(guarded(number(e.length) >= 1) for e in own.values()):
        raise Refusal(reasons.TOO_FEW, op=node.target)

    def rest(b: Any, made: fx.Node, left: list[int]) -> fx.Node:
        return b.call(node.target, made, left)

    return _padded(node, flow, x, list(amounts), place, rest, lambda b, made, *_: made)


def _padded(
    node: fx.Node,
    flow: Flow,
    x: Any,
    amounts: list[Any],
    place: _Place,
    rest: Callable[[Any, fx.Node, list[int]], fx.Node],
    outside: Callable[[Any, fx.Node, int, Count, Extent, Any], fx.Node],
) -> Extents:
    """``x`` padded by ``amounts``, which are (before, after) from the last dim on. ``rest`` pads the dims without an extent.

    Where amounts are positions, the dim has a steady number of rows in the end, and no extent.
    """
    shape, rank = node.meta["val"].shape, x.meta["val"].dim()
    sides = {rank - 1 - i: tuple(amounts[2 * i : 2 * i + 2]) for i in range(len(amounts) // 2)}
    own, out = {d: e for d, e in flow.of(x).items() if any(sides.get(d, ()))}, dict(flow.of(x))
    full = {d for d, both in sides.items() if any(a in flow.positions for a in both)}
    if any(d not in own or flow.positions.move(shape[d]) for d in full):
        raise Refusal(reasons.BY_POSITION, op=node.target, how=_ADDED)
    for dim, extent in own.items():
        if dim in full:
            del out[dim]
            continue
        out[dim] = resized(node, flow, extent, (operator.add, sum(sides[dim])))
        if not guarded(number(out[dim].length) >= 0):
            raise Refusal(reasons.TOO_FEW, op=node.target)
    left = [0 if rank - 1 - i // 2 in own else a for i, a in enumerate(amounts)]

    def build(b: Any) -> fx.Node:
        made = rest(b, x, left)
        for dim, extent in own.items():
            length, before = valid_length(b, extent, x), b.twin(sides[dim][0], x.meta["val"].device)
            count = b.full(out[dim]) if dim in out else b.steady(shape[dim])
            if count is None:
                raise Refusal(reasons.BY_POSITION, op=node.target, how=_ADDED)
            at = lambda i, n=length, a=before: place(b, less(b, i, a), n)  # noqa: E731
            made = rows(b, made, dim, extent, count, at)
            made = outside(b, made, dim, before, extent, count)
        return made

    if own:
        flow.replace(node, build)
    return out
