"""Slices of a position-dependent axis: the rows that are left are found again in the full buffer.

    k[:, :, :n]                 {2: e}      ->      k, and only [0, n) of it is valid
    k[:, :, 2:]                 {2: e}      ->      index_select(k, 2, min(arange(S) + 2, S - 1))       valid below e - 2
    k[:, :, -4:]                {2: e}      ->      index_select(k, 2, arange(4) + e - 4)               four rows, all valid

A negative bound counts from the end of what is valid, not of the buffer. The last two are copies of what was a view.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import Extent, Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.bounds import TO_THE_END, slice_arguments
from fxpass.graph.numbers import equal, fixed, guarded, number

aten = torch.ops.aten


@rule(aten.slice.Tensor)
def slice_(node: fx.Node, flow: Flow) -> Extents:
    x, dim, start, end, step = slice_arguments(node)
    dim %= node.meta["val"].dim()
    if dim not in flow.of(x):
        return dict(flow.of(x))
    if step != 1:
        raise Refusal("every other element of the position-dependent axis")
    return _sliced(node, flow, x, dim, start, end)


@rule(aten.narrow.default)
def narrow(node: fx.Node, flow: Flow) -> Extents:
    x, dim, start, length = node.args
    dim %= node.meta["val"].dim()
    if dim not in flow.of(x):
        return dict(flow.of(x))
    start = _from_the_front(node, flow, flow.of(x)[dim], start)
    return _sliced(node, flow, x, dim, start, flow.derive(node, operator.add, start, length))


def _sliced(node: fx.Node, flow: Flow, x: fx.Node, dim: int, start: Any, end: Any) -> Extents:
    extent = flow.of(x)[dim]
    start, end = (_from_the_front(node, flow, extent, bound) for bound in (start, end))
    rest = {d: e for d, e in flow.of(x).items() if d != dim}
    rows = fixed(node.meta["val"].shape[dim])
    if rows is not None:
        flow.refuse_copy(node)
        flow.replace(node, lambda b: _rows(b, x, dim, start, rows))
        return rest
    length = end if equal(start, 0) else flow.derive(node, operator.sub, end, start)
    if not guarded(number(length) >= 0):
        raise Refusal("a slice of the position-dependent axis that may be empty")
    own = extent if equal(length, extent.length) else Extent(length, extent.full, extent.full_dim, extent.sites)
    if equal(start, 0):
        flow.replace(node, lambda b: b.call(aten.alias.default, x))
    else:
        flow.refuse_copy(node)
        flow.replace(node, lambda b: _rows_from(b, x, dim, start, extent))
    flow.lengths.append(own)
    return {**rest, dim: own}


def _from_the_front(node: fx.Node, flow: Flow, extent: Extent, bound: Any) -> Any:
    """``bound`` of a slice as a number between 0 and the length of ``extent``.

    Raises:
        Refusal: it is not known to be in there, and slicing would have clamped it.
    """
    if isinstance(bound, int) and bound == TO_THE_END:
        return extent.length
    if not guarded(number(bound) >= 0):
        if not guarded(number(bound) < 0):
            raise Refusal("a bound of a slice of the position-dependent axis is of unknown sign")
        bound = flow.derive(node, operator.add, extent.length, bound)
        if not guarded(number(bound) >= 0):
            raise Refusal("a slice of the position-dependent axis starts before its first row")
    if not guarded(number(bound) <= number(extent.length)):
        raise Refusal("a slice of the position-dependent axis ends after its last row")
    return bound


def _rows(b: Any, x: fx.Node, dim: int, start: Any, rows: int) -> fx.Node:
    device = x.meta["val"].device
    steps = b.call(aten.arange.default, rows, device=device)
    return b.call(aten.index_select.default, x, dim, b.call(aten.add.Tensor, steps, b.twin(start, device)))


def _rows_from(b: Any, x: fx.Node, dim: int, start: Any, extent: Extent) -> fx.Node:
    device, size = x.meta["val"].device, b.full(extent)
    steps = b.call(aten.add.Tensor, b.call(aten.arange.default, size, device=device), b.twin(start, device))
    last = size - 1 if isinstance(size, int) else b.call(operator.sub, size, 1)
    return b.call(aten.index_select.default, x, dim, b.call(aten.clamp_max.default, steps, last))
