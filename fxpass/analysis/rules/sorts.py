"""Sorting: the invalid part is filled with the value that comes last, and equal elements keep their order.

sort(k, 2)                  ->      sort(masked_fill(k, invalid, nan), stable=True, dim=2)          valid below e
topk(k, 3, 2).values        ->      topk(masked_fill(k, invalid, -inf), 3, 2).values
kthvalue(k, 3, 2).values    ->      kthvalue(masked_fill(k, invalid, nan), 3, 2).values

The sort is stable, so that fill values come after valid elements that equal them. Which of several equal elements `topk` and
`kthvalue` choose depends on the size of the axis: their places are refused, their values are not.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, number
from fxpass.graph.schemas import arguments_by_name

from .reductions import extreme, left

aten = torch.ops.aten


@rule(aten.sort, aten.argsort)
def sort(node: fx.Node, flow: Flow) -> Extents:
    given = _given(node)
    x, dim, descending = given["self"], given["dim"], bool(given.get("descending", False))
    if dim not in flow.of(x):
        return dict(flow.of(x))
    if not given.get("stable", False) and not _same_order(node, x):
        raise Refusal(reasons.TIES, op=node.target)
    flow.fill(node, x, [dim], extreme(x, largest=not descending, with_nan=True))

    def build(b: Any) -> fx.Node:
        made = b.call(aten.sort.stable, b.operand(node, x), stable=True, dim=dim, descending=descending)
        return b.call(operator.getitem, made, 1) if "argsort" in str(node.target) else made

    flow.replace(node, build)
    return dict(flow.of(x))


def _same_order(node: fx.Node, x: fx.Node) -> bool:
    """Whether a stable sort gives the same: the sort is stable anyway, or nobody uses the places."""
    return x.meta["val"].device.type == "cpu" or ("argsort" not in str(node.target) and not _places_used(node))


def _places_used(node: fx.Node) -> bool:
    """Whether the second result of ``node``, the places of the values, is used."""
    return any(u.target is not operator.getitem or (u.args[1] == 1 and u.users) for u in node.users)


@rule(aten.topk.default)
def topk(node: fx.Node, flow: Flow) -> Extents:
    given = _given(node)
    return _selected(node, flow, not given.get("largest", True), given.get("sorted", True))


@rule(aten.kthvalue.default)
def kthvalue(node: fx.Node, flow: Flow) -> Extents:
    given = _given(node)
    return left(_selected(node, flow, True, True), {given["dim"]}, bool(given.get("keepdim", False)))


def _given(node: fx.Node) -> dict[str, Any]:
    """The arguments of ``node`` by name, with the dim counted from the front."""
    given = arguments_by_name(node)
    given["dim"] = given.get("dim", -1) % max(given["self"].meta["val"].dim(), 1)
    return given


def _selected(node: fx.Node, flow: Flow, smallest: bool, ordered: bool) -> Extents:
    """The rule of an op that selects the ``k`` smallest, or largest, elements. At least ``k`` must be valid."""
    given = _given(node)
    x, k, dim = given["self"], given["k"], given["dim"]
    own = dict(flow.of(x))
    if dim not in own:
        return own
    if k in flow.positions:
        raise Refusal(reasons.BY_POSITION, op=node.target, how="which is how many it gives")
    if _places_used(node):
        raise Refusal(reasons.TIES, op=node.target)
    if not ordered:
        raise Refusal(reasons.TIES, op=f"{node.target} with sorted=False")
    if not guarded(number(own.pop(dim).length) >= k):
        raise Refusal(reasons.TOO_FEW, op=node.target)
    flow.fill(node, x, [dim], extreme(x, largest=smallest, with_nan=smallest))
    return own


@rule(aten.searchsorted, aten.bucketize)
def searchsorted(node: fx.Node, flow: Flow) -> Extents:
    """Places among sorted numbers. The invalid part is filled with the largest number, and places are at most the length."""
    bucketize = "bucketize" in str(node.target)
    values, bounds = (node.args[0], node.args[1]) if bucketize else (node.args[1], node.args[0])
    own, rank = flow.of(bounds), bounds.meta["val"].dim()  # type: ignore[union-attr]
    out: Extents = dict(flow.of(values))
    if set(own) != {rank - 1} and (own or rank > 1) or (rank > 1 and set(out) - {rank - 1}) or "sorter" in node.kwargs:
        raise Refusal(reasons.OTHER_AXIS, op=node.target, what="a sorter, or rows")
    if rank - 1 not in own:
        return out
    extent = own[rank - 1]
    flow.fill(node, bounds, [rank - 1], extreme(bounds, largest=True))  # a search compares, so NaN would not come last

    first, second = node.args[:2]

    def build(b: Any) -> fx.Node:
        found = b.call(node.target, b.operand(node, first), b.operand(node, second), *node.args[2:], **node.kwargs)
        most = b.call(aten.to.dtype, b.tensor(extent.length, bounds.meta["val"].device), node.meta["val"].dtype)  # type: ignore[union-attr]
        return b.call(aten.minimum.default, found, most)

    flow.replace(node, build)
    return out
