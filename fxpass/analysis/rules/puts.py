"""Values that are put where index tensors say, or a mask: places are counted from the first row, and asserted to be valid.

index_put_(k, [None, rows], x)          {1: e}      ->      _assert_async(all(-e <= rows < e)), index_put_(k, [None, rows'], x)
scatter(k, 1, rows, x)                  {1: e}      ->      _assert_async(all(rows < e)), scatter(k, 1, rows, x)
masked_scatter(k, mask, x)              {1: e}      ->      masked_scatter(k, mask & valid, x)

Eager raises an error for a place past the valid rows. Without the assertion it would be one only past the buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, number

from .alignment import align
from .lookups import from_the_front
from .pointwise import broadcast

aten = torch.ops.aten


@rule(aten.index_put.default, aten.index_put_.default)
def index_put(node: fx.Node, flow: Flow) -> Extents:
    x, indices, values, *accumulate = node.args
    places: list[Any] = list(indices)  # type: ignore[arg-type]
    if any(i.meta["val"].dtype in (torch.bool, torch.uint8) for i in places if i is not None):
        raise Refusal(reasons.LOOKUP, how="with a boolean mask")
    checked = {d: e for d, e in flow.of(x).items() if d < len(places) and places[d] is not None}
    if checked.keys() != flow.of(x).keys():
        raise Refusal(reasons.FROM_ELSEWHERE, what="what is put into a copy")
    _refuse_moving(node, flow, [values, *places])

    def build(b: Any) -> fx.Node:
        chosen = from_the_front(b, node, places, checked)
        return b.call(node.target, b.operand(node, x), chosen, b.operand(node, values), *accumulate)

    flow.replace(node, build)
    return dict(flow.of(x))


@rule(aten.index_copy, aten.index_copy_, aten.index_add, aten.index_add_, aten.index_fill, aten.index_fill_)
def along_dim(node: fx.Node, flow: Flow) -> Extents:
    """One index tensor, of rows that are put in whole."""
    x, dim, index, new = node.args[:4]
    own, dim = dict(flow.of(x)), dim % node.meta["val"].dim()  # type: ignore[operator]
    beside = flow.of(new)
    if beside.keys() - own.keys() or dim in beside or isinstance(new, fx.Node) and own.keys() - beside.keys() - {dim}:
        raise Refusal(reasons.FROM_ELSEWHERE, what="what is put into a copy")
    for d in beside:
        own[d] = align(node, flow, [(x, d), (new, d)])
    _check(node, flow, dim, index)
    return own


@rule(
    aten.scatter, aten.scatter_, aten.scatter_add, aten.scatter_add_, aten.scatter_reduce.two, aten.scatter_reduce_.two
)
def scatter(node: fx.Node, flow: Flow) -> Extents:
    x, dim, index, new = node.args[:4]
    own, dim = dict(flow.of(x)), dim % node.meta["val"].dim()  # type: ignore[operator]
    _refuse_moving(node, flow, [new])
    for d, extent in own.items():
        if d != dim and not guarded(index.meta["val"].shape[d] <= number(extent.length)):  # type: ignore[union-attr]
            raise Refusal(reasons.LOOKUP, how="of more than is valid")
    _check(node, flow, dim, index)
    return own


@rule(aten.masked_scatter, aten.masked_scatter_)
def masked_scatter(node: fx.Node, flow: Flow) -> Extents:
    x, mask, new = node.args
    own = broadcast(node, flow, [x, mask])
    _refuse_moving(node, flow, [new])
    if own.keys() != flow.of(x).keys():
        raise Refusal(reasons.FROM_ELSEWHERE, what="what is put into a copy")

    def build(b: Any) -> fx.Node:
        there = b.operand(node, mask)
        for d, extent in own.items():
            there = b.call(aten.logical_and.default, there, b.valid_along(extent, x.meta["val"], d))
        return b.call(node.target, b.operand(node, x), there, b.operand(node, new))

    flow.replace(node, build)
    return own


def _refuse_moving(node: fx.Node, flow: Flow, operands: Sequence[Any]) -> None:
    if any(flow.of(operand) for operand in operands):
        raise Refusal(reasons.LOOKUP, how=f"by {node.target} of a number of rows that moves")


def _check(node: fx.Node, flow: Flow, dim: int, index: Any) -> None:
    """Ask for an assertion that ``index`` stays within the valid rows along ``dim`` of what ``node`` puts into."""
    _refuse_moving(node, flow, [index])
    extent = flow.of(node.args[0]).get(dim)

    def build(b: Any) -> fx.Node:
        if extent is not None:
            b.check_index(index, extent, index)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda operand: b.operand(node, operand))
        return b.call(node.target, *args, **kwargs)

    flow.replace(node, build)
