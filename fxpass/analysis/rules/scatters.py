"""Rows that are put into a copy at a place: each row of the result is one of the new rows, or what was there.

slice_scatter(k, x, 2, a, b)        row i is row i - a of x where a <= i < b, else row i of k
select_scatter(k, x, 2, -1)         row i is x where i is e - 1, else row i of k
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extent, Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.bounds import size_of
from fxpass.graph.numbers import guarded, number
from fxpass.graph.schemas import arguments_by_name

from .alignment import align
from .places import take
from .slices import within_extent

aten = torch.ops.aten


@rule(aten.select_scatter.default)
def select_scatter(node: fx.Node, flow: Flow) -> Extents:
    x, new, dim, index = node.args
    dim %= x.meta["val"].dim()
    own = dict(flow.of(x))
    beside = {d + (d >= dim): e for d, e in flow.of(new).items()}
    if {d for d in own if d != dim} != beside.keys():
        raise Refusal(reasons.FROM_ELSEWHERE, what="what is put into a copy")
    for d in beside:
        own[d] = align(node, flow, [(x, d), (new, d - (d > dim))])
    if dim not in own:
        return own
    place = within_extent(node, flow, own[dim], index, below=True)
    _refuse_other_sizes(new, [size for d, size in enumerate(x.meta["val"].shape) if d != dim])

    def build(b: Any) -> fx.Node:
        steps = b.call(aten.arange.default, b.full(own[dim]), device=x.meta["val"].device)
        there = b.call(aten.eq.Tensor, steps, b.tensor(place, x.meta["val"].device))
        return _put(b, node, x, b.call(aten.unsqueeze.default, b.operand(node, new), dim), dim, there)

    flow.replace(node, build)
    return own


@rule(aten.slice_scatter.default)
def slice_scatter(node: fx.Node, flow: Flow) -> Extents:
    given = arguments_by_name(node)
    x, new, start, step = given["self"], given["src"], given.get("start") or 0, given.get("step", 1)
    dim = given.get("dim", 0) % x.meta["val"].dim()
    own, other = dict(flow.of(x)), dict(flow.of(new))
    rows = other.pop(dim, None)
    if {d for d in own if d != dim} != other.keys():
        raise Refusal(reasons.FROM_ELSEWHERE, what="what is put into a copy")
    for d in other:
        own[d] = align(node, flow, [(x, d), (new, d)])
    if dim not in own and rows is None:
        return own
    if step != 1 or dim not in own:
        raise Refusal(reasons.JOINED, how="into every other row" if step != 1 else "into rows that are all valid")
    first, stop = (within_extent(node, flow, own[dim], bound) for bound in (start, _stop(given, own[dim])))
    wanted = number(stop) - number(first)
    _refuse_other_sizes(new, [wanted if d == dim else size for d, size in enumerate(x.meta["val"].shape)])
    count = size_of(new, dim, node) if rows is None else rows.length

    def build(b: Any) -> fx.Node:
        device, size = x.meta["val"].device, b.size(new, dim) if rows is None else b.full(rows)
        steps = b.call(aten.arange.default, b.full(own[dim]), device=device)
        places = b.call(aten.sub.Tensor, steps, b.twin(first, device))
        behind = b.call(aten.lt.Tensor, places, b.tensor(count, device))
        there = b.call(aten.logical_and.default, b.call(aten.ge.Scalar, places, 0), behind)
        return _put(b, node, x, take(b, b.operand(node, new), dim, size, places), dim, there)

    flow.replace(node, build)
    return own


def _stop(given: dict[str, Any], extent: Extent) -> Any:
    """The end of the slice of a `slice_scatter` with the arguments ``given``: the end of the valid rows at most."""
    stop = given.get("end")
    return extent.length if stop is None or guarded(number(stop) >= number(extent.length)) else stop


def _refuse_other_sizes(new: fx.Node, sizes: Sequence[Any]) -> None:
    """Refuse sizes that eager refuses, and that a mask would broadcast or cut. Tensors without data do not raise for them.

    Raises:
        Refusal: ``new`` has other sizes than the rows that it replaces.
    """
    own = new.meta["val"].shape
    if len(own) != len(sizes) or not all(guarded(a == b) for a, b in zip(own, sizes, strict=True)):
        raise Refusal(reasons.JOINED, how="in the place of another number of rows")


def _put(b: Any, node: fx.Node, x: fx.Node, new: fx.Node, dim: int, there: fx.Node) -> fx.Node:
    """``new`` in the rows of ``x`` along ``dim`` that are ``there``."""
    dtype, rank = x.meta["val"].dtype, x.meta["val"].dim()
    new, old = (b.bits(t, dtype) for t in (b.call(aten.to.dtype, new, dtype), b.operand(node, x)))
    return b.back(b.call(aten.where.self, b.along(there, rank, dim), new, old), dtype)  # type: ignore[no-any-return]
