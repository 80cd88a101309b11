"""Slices of an axis with an extent: the rows of the slice are gathered from the full buffer.

    k[:, :, :n]                 {2: e}      ->      k, of which [0, n) is valid
    k[:, :, 2:]                 {2: e}      ->      index_select(k, 2, min(arange(S) + 2, S - 1))       valid below e - 2
    k[:, :, -4:]                {2: e}      ->      index_select(k, 2, arange(4) + e - 4)               four rows, all valid
    k[:, :, -n:]                {2: e}      ->      index_select(k, 2, arange(n) + e - n)               the rows of a chunk
    k[:, :, ::2]                {2: e}      ->      index_select(k, 2, min(arange(S) * 2, S - 1))       valid below ceil(e / 2)
    k[:, :, -1]                 {2: e}      ->      index_select(k, 2, arange(1) + e - 1), squeezed

A negative bound counts from the end of the valid part. All of these but the first are copies where eager has views. A slice
that is only written to is dealt with in `parts`.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extent, Extents, Flow, WrittenSlice, rule
from fxpass.errors import Refusal
from fxpass.graph.bounds import TO_THE_END, slice_arguments
from fxpass.graph.numbers import equal, fixed, guarded, number

from .parts import is_only_written, take_part
from .places import plus, rows, times

aten = torch.ops.aten


@rule(aten.slice.Tensor)
def slice_(node: fx.Node, flow: Flow) -> Extents:
    x, dim, start, end, step = slice_arguments(node)
    dim %= node.meta["val"].dim()
    if dim not in flow.of(x):
        return dict(flow.of(x))
    if step in flow.positions:
        raise Refusal(reasons.BY_POSITION, op=node.target, how="which is the step of a slice of the position-dependent axis")
    return _sliced(node, flow, x, dim, start, end, step)


@rule(aten.narrow.default)
def narrow(node: fx.Node, flow: Flow) -> Extents:
    x, dim, start, length = node.args
    dim %= node.meta["val"].dim()
    if dim not in flow.of(x):
        return dict(flow.of(x))
    start = within_extent(node, flow, flow.of(x)[dim], start)
    return _sliced(node, flow, x, dim, start, flow.derive(node, operator.add, start, length))


@rule(aten.select.int)
def select(node: fx.Node, flow: Flow) -> Extents:
    x, dim, index = node.args
    dim %= x.meta["val"].dim()
    extent = flow.of(x).get(dim)
    if extent is not None:
        place = within_extent(node, flow, extent, index, below=True)
        take_part(node, flow, WrittenSlice(x, dim, extent, place, 1, squeezed=True))
        flow.replace(node, lambda b: b.call(aten.squeeze.dim, _rows(b, x, dim, extent, place, 1, 1), dim))
    return {d - (d > dim): e for d, e in flow.of(x).items() if d != dim}


def _sliced(node: fx.Node, flow: Flow, x: fx.Node, dim: int, start: Any, end: Any, step: int = 1) -> Extents:
    extent = flow.of(x)[dim]
    start, end = (within_extent(node, flow, extent, bound) for bound in (start, end))
    rest = {d: e for d, e in flow.of(x).items() if d != dim}
    count = fixed(node.meta["val"].shape[dim])
    if count is None and not is_only_written(node):
        count = flow.steady(node.meta["val"].shape[dim], node)
    if count is not None:
        take_part(node, flow, WrittenSlice(x, dim, extent, start, count), step)
        flow.replace(node, lambda b: _rows(b, x, dim, extent, start, b.number(count), step))
        return rest
    length = end if equal(start, 0) else flow.derive(node, operator.sub, end, start)
    if not guarded(number(length) >= 0):
        raise Refusal(reasons.OUTSIDE, how="what is left of a slice may be empty")
    if step != 1:
        length = flow.derive(node, operator.floordiv, flow.derive(node, operator.add, length, step - 1), step)
    own = extent if equal(length, extent.length) else dataclasses.replace(extent, length=length)
    if equal(start, 0) and step == 1:
        flow.replace(node, lambda b: b.call(aten.alias.default, x))
    else:
        take_part(node, flow, WrittenSlice(x, dim, extent, start, length), step)
        flow.replace(node, lambda b: _rows(b, x, dim, extent, start, b.full(extent), step))
    flow.lengths.append(own)
    return {**rest, dim: own}


def within_extent(node: fx.Node, flow: Flow, extent: Extent, bound: Any, below: bool = False) -> Any:
    """The ``bound`` of a slice as a number from 0 to the length of ``extent``; with ``below``, less than the length.

    Raises:
        Refusal: it is not known to lie there. A slice would clamp it.
    """
    if isinstance(bound, int) and bound == TO_THE_END:
        return extent.length
    if not guarded(number(bound) >= 0):
        if not guarded(number(bound) < 0):
            raise Refusal(reasons.UNKNOWN_SIGN)
        bound = flow.derive(node, operator.add, extent.length, bound)
        if not guarded(number(bound) >= 0):
            raise Refusal(reasons.OUTSIDE, how="it starts before the first row of a slice")
    if not guarded(number(bound) <= number(extent.length)):
        raise Refusal(reasons.OUTSIDE, how="it ends after the last row of a slice")
    if below and not guarded(number(bound) < number(extent.length)):
        raise Refusal(reasons.OUTSIDE, how="an element after the last row of a slice")
    return bound


def _rows(b: Any, x: fx.Node, dim: int, extent: Extent, start: Any, count: Any, step: int) -> fx.Node:
    """``count`` rows of ``x``, which has ``extent`` along ``dim``, from ``start`` on."""
    first = b.twin(start, x.meta["val"].device)
    return rows(b, x, dim, extent, count, lambda steps: plus(b, times(b, steps, step), first))
