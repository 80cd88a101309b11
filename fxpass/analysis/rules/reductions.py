"""Reductions along the axis: the invalid part is filled with the value that does not change the result.

sum(x, [2])        ->   sum(masked_fill(x, invalid, 0), [2])
mean(x, [2])       ->   sum(masked_fill(x, invalid, 0), [2]) / length
amax(x, [2])       ->   amax(masked_fill(x, invalid, -inf), [2])
softmax(x, 2)      ->   softmax(masked_fill(x, invalid, -inf), 2), zero where invalid
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, number

aten = torch.ops.aten


def reduced_dims(node: fx.Node, position: int = 1) -> tuple[set[int], bool]:
    """The reduced dims, and `keepdim`."""
    rank = node.args[0].meta["val"].dim()  # type: ignore[union-attr]
    dims: Any = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    keep = node.args[position + 1] if len(node.args) > position + 1 else node.kwargs.get("keepdim", False)
    if dims is None or dims == []:
        return set(range(rank)), bool(keep)
    return {d % rank for d in (dims if isinstance(dims, (list, tuple)) else [dims])}, bool(keep)


def left(extents: Extents, dims: set[int], keep: bool) -> Extents:
    """Those of ``extents`` that are left when ``dims`` are reduced, by the dims of the result."""
    return {d if keep else d - sum(r < d for r in dims): e for d, e in extents.items() if d not in dims}


def extreme(x: Any, largest: bool, with_nan: bool = False) -> Any:
    """The largest or the smallest number of the dtype of ``x``. With ``with_nan``, NaN counts as the largest."""
    dtype = x.meta["val"].dtype
    if dtype is torch.bool:
        return largest
    if dtype.is_floating_point:
        return float("nan" if with_nan else "inf") if largest else float("-inf")
    info = torch.iinfo(dtype)
    return info.max if largest else info.min


@rule(aten.sum, aten.nansum, aten.count_nonzero, aten.prod)
def sum_(node: fx.Node, flow: Flow) -> Extents:
    dims, keep = reduced_dims(node)
    flow.fill(node, node.args[0], dims, 1 if node.target in _PRODUCTS else 0)
    return left(flow.of(node.args[0]), dims, keep)


_PRODUCTS = {aten.prod.default, aten.prod.dim_int}


@rule(aten.mean)
def mean(node: fx.Node, flow: Flow) -> Extents:
    x = node.args[0]
    dims, keep = reduced_dims(node)
    extents = flow.of(x)
    if dims & extents.keys():
        flow.fill(node, x, dims, 0)
        flow.replace(node, lambda b: b.mean(x, sorted(dims), keep, extents, node.kwargs.get("dtype")))
    return left(extents, dims, keep)


def _check_extremum(node: fx.Node, flow: Flow, dims: set[int]) -> None:
    """Refuse an extremum of no elements, for which eager raises an error, and a place in a flattened tensor, which would be
    another place in the whole buffer."""
    extents = flow.of(node.args[0])
    if node.target not in _ANY and not all(guarded(number(extents[d].length) >= 1) for d in dims if d in extents):
        raise Refusal(reasons.TOO_FEW, op=node.target)
    if node.target in (aten.argmax.default, aten.argmin.default) and len(dims) > 1 and extents:
        raise Refusal(reasons.FLATTENED, op=node.target)


@rule(aten.amax, aten.max.dim, aten.max.default, aten.any, aten.argmax)
def largest(node: fx.Node, flow: Flow) -> Extents:
    dims, keep = reduced_dims(node)
    _check_extremum(node, flow, dims)
    flow.fill(node, node.args[0], dims, extreme(node.args[0], largest=False) if node.target not in _ANY else False)
    return left(flow.of(node.args[0]), dims, keep)


@rule(aten.amin, aten.min.dim, aten.min.default, aten.all, aten.argmin)
def smallest(node: fx.Node, flow: Flow) -> Extents:
    dims, keep = reduced_dims(node)
    _check_extremum(node, flow, dims)
    flow.fill(node, node.args[0], dims, extreme(node.args[0], largest=True))
    return left(flow.of(node.args[0]), dims, keep)


_ANY = {aten.any.default, aten.any.dim, aten.any.dims, aten.all.default, aten.all.dim, aten.all.dims}


@rule(aten.softmax.int, aten._softmax, aten.log_softmax.int, aten._log_softmax, aten._safe_softmax, aten.logsumexp)
def softmax(node: fx.Node, flow: Flow) -> Extents:
    x = node.args[0]
    dims, keep = reduced_dims(node)
    if not x.meta["val"].dtype.is_floating_point and dims & flow.of(x).keys():  # type: ignore[union-attr]
        raise Refusal(reasons.NO_INFINITY, op=node.target)
    flow.fill(node, x, dims, float("-inf"))
    return left(flow.of(x), dims, keep) if node.target is aten.logsumexp.default else dict(flow.of(x))


@rule(aten.cumsum, aten.logcumsumexp, aten.cumprod, aten.cummax, aten.cummin)
def cumsum(node: fx.Node, flow: Flow) -> Extents:
    """A cumulative sum. No element depends on those after it."""
    return dict(flow.of(node.args[0]))
