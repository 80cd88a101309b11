"""Values are put at places that index tensors, or a mask, name. Places count from the first row, and are asserted to be valid.

index_put_(k, [None, rows], x)          {1: e}      ->      _assert_async(all(-e <= rows < e)), index_put_(k, [None, rows'], x)
scatter(k, 1, rows, x)                  {1: e}      ->      _assert_async(all(rows < e)), scatter(k, 1, rows, x)
masked_scatter(k, mask, x)              {1: e}      ->      masked_scatter(k, mask & valid, x)

Eager raises an error for a place past the valid rows. Without the assertion, only a place past the buffer would raise one.

Valid rows may also be put into a tensor of fixed sizes. Rows past the last valid one then repeat that row, or add nothing:

counts.scatter_add(1, tokens[:, :e], x[:, :e])          ->      counts.scatter_add(1, zeroed(tokens), zeroed(x))
counts.index_put([tokens[:e]], 1, accumulate=True)      ->      counts.index_put([zeroed(tokens)], where(valid, 1, 0), ...)
scores.scatter(1, tokens[:, :e], x[:, :e])              ->      scores.scatter(1, tokens[:, min(i, e - 1)], x[:, min(i, e - 1)])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extent, Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import equal, guarded, number

from .alignment import align
from .lookups import places_from_the_front
from .pointwise import broadcast

aten = torch.ops.aten
_INDEX_PUTS = (aten.index_put.default, aten.index_put_.default)


@rule(*_INDEX_PUTS)
def index_put(node: fx.Node, flow: Flow) -> Extents:
    x, indices, values, *accumulate = node.args
    places: list[Any] = list(indices)  # type: ignore[arg-type]
    if any(i.meta["val"].dtype in (torch.bool, torch.uint8) for i in places if i is not None):
        raise Refusal(reasons.LOOKUP, how="with a boolean mask")
    if _is_of_moving_rows(flow, x, values, *places):
        return _put_moving_rows(node, flow, [*places, values], adds=accumulate == [True])
    checked = {d: e for d, e in flow.of(x).items() if d < len(places) and places[d] is not None}
    if checked.keys() != flow.of(x).keys():
        raise Refusal(reasons.FROM_ELSEWHERE, what="what is put into a copy")
    _refuse_moving(node, flow, [values, *places])

    def build(b: Any) -> fx.Node:
        chosen = places_from_the_front(b, node, places, checked)
        return b.call(node.target, b.operand(node, x), chosen, b.operand(node, values), *accumulate)

    flow.replace(node, build)
    return dict(flow.of(x))


@rule(aten.index_copy, aten.index_copy_, aten.index_add, aten.index_add_, aten.index_fill, aten.index_fill_)
def along_dim(node: fx.Node, flow: Flow) -> Extents:
    """One index tensor, of rows that are put in whole."""
    x, dim, index, new = node.args[:4]
    if _is_of_moving_rows(flow, x, index) and flow.of(new).keys() <= {dim % x.meta["val"].dim()}:  # type: ignore
        adds = node.target in (aten.index_add.default, aten.index_add_.default)
        return _put_moving_rows(node, flow, [index, new], adds)
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
    along = {*flow.of(index), *flow.of(new)} == {dim}
    if _is_of_moving_rows(flow, x, index) and along and (way := _way(node)) is not None:
        return _put_moving_rows(node, flow, [index, new], adds=way == "sum")
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


def _way(node: fx.Node) -> str | None:
    """How a `scatter` puts values in: the last one stays (""), or their "sum", "amax" or "amin"; None for any other way, where
    values that are put in twice, or zeros, make a difference."""
    if node.target in (aten.scatter_add.default, aten.scatter_add_.default):
        return "sum"
    if node.target in (aten.scatter_reduce.two, aten.scatter_reduce_.two):
        way = str(node.args[4])
        return way if way in ("amax", "amin") or way == "sum" and node.kwargs.get("include_self", True) else None
    return "" if len(node.args) == 4 and not node.kwargs else None


def _is_of_moving_rows(flow: Flow, x: fx.Node, *operands: Any) -> bool:
    """Whether ``operands`` have extents, and ``x``, into which they are put, has none."""
    return not flow.of(x) and any(flow.of(operand) for operand in operands)


def _put_moving_rows(node: fx.Node, flow: Flow, operands: Sequence[Any], adds: bool) -> Extents:
    """Let the rows of ``operands`` past the last valid row repeat that row or, where ``node`` ``adds`` rows up, add nothing.

    Raises:
        Refusal: they lie in tensors of different sizes, or it is not known that there is a row.
    """
    moving = [operand for operand in operands if flow.of(operand)]
    extents = [e for operand in moving for e in flow.of(operand).values()]
    if not all(equal(e.length, extents[0].length) and equal(e.full_size, extents[0].full_size) for e in extents):
        raise Refusal(reasons.LENGTHS, what="what is put in, and places")
    values = operands[-1]
    is_elsewhere = isinstance(values, fx.Node) and values not in moving
    if is_elsewhere and not _is_for_each_row(node, values, extents[0]):
        raise Refusal(reasons.FROM_ELSEWHERE, what="what is put into a copy")
    if not guarded(number(extents[0].length) >= 1):
        raise Refusal(reasons.TOO_FEW, op=node.target)
    if adds:
        for operand in dict.fromkeys(moving):
            flow.fill(node, operand, flow.of(operand), 0)
        if is_elsewhere:
            _add_to_valid_rows(node, flow, dict.fromkeys(moving), values)
        return {}

    given = node.args, node.kwargs

    def last_again(b: Any, operand: fx.Node) -> fx.Node:
        made, device = b.operand(node, operand), operand.meta["val"].device
        for dim, extent in flow.of(operand).items():
            steps = b.call(aten.arange.default, b.full(extent), device=device)
            last = b.call(aten.sub.Tensor, b.tensor(extent.length, device), 1)
            made = b.taken(made, dim, b.call(aten.minimum.default, steps, last))
        return made

    def build(b: Any) -> fx.Node:
        args, kwargs = fx.map_arg(given, lambda operand: last_again(b, operand))
        return b.call(node.target, *args, **kwargs)

    flow.replace(node, build)
    return {}


def _is_for_each_row(node: fx.Node, values: fx.Node, extent: Extent) -> bool:
    """Whether ``node`` puts the same ``values`` at each of the places, whose number is the length of ``extent``."""
    shape = values.meta["val"].shape
    is_broadcast = node.target in _INDEX_PUTS and not any(equal(size, extent.length) for size in shape)
    return is_broadcast or bool(values.meta["val"].numel() == 1)


def _add_to_valid_rows(node: fx.Node, flow: Flow, places: Iterable[fx.Node], values: fx.Node) -> None:
    """Let ``node``, an `index_put`, add ``values`` at those of the ``places`` that are valid, and 0 at the others.

    Raises:
        Refusal: the dims that are indexed do not lie next to each other.
    """
    x, indices = node.args[:2]
    used = [d for d, i in enumerate(indices) if i is not None]  # type: ignore[arg-type]
    if used != list(range(used[0], used[-1] + 1)):
        raise Refusal(reasons.LOOKUP, how="along dims that are not next to each other")
    behind = x.meta["val"].dim() - 1 - used[-1]  # type: ignore[union-attr]

    def build(b: Any) -> fx.Node:
        (x, chosen, added, *rest), _ = b.arguments(node)
        nothing = b.call(aten.zeros_like.default, added)
        for operand in places:
            for dim, extent in flow.of(operand).items():
                valid = b.valid_along(extent, operand.meta["val"], dim)
                for _ in range(behind):
                    valid = b.call(aten.unsqueeze.default, valid, -1)
                added = b.call(aten.where.self, valid, added, nothing)
        return b.call(node.target, x, chosen, added, *rest)

    flow.replace(node, build)


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
        args, kwargs = b.arguments(node)
        return b.call(node.target, *args, **kwargs)

    flow.replace(node, build)
