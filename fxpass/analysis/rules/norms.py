"""Norms, variances and standard deviations.

layer_norm(x, [d])      the extent passes, unless it is on one of the normalized dims
var(x, [2])             sum(((x - mean) ** 2) where valid, [2]) / (length - correction)
vector_norm(x, 2, [2])  vector_norm(masked_fill(x, invalid, 0), 2, [2])
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, number

from .reductions import left, reduced_dims

aten = torch.ops.aten


@rule(aten.layer_norm.default, aten.rms_norm.default)
def layer_norm(node: fx.Node, flow: Flow) -> Extents:
    x, shape = node.args[:2]
    first = x.meta["val"].dim() - len(shape)  # type: ignore[union-attr, arg-type]
    if any(d >= first for d in flow.of(x)):
        raise Refusal(reasons.OVER_AXIS, op=node.target)
    return dict(flow.of(x))


@rule(aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim)
def vector_norm(node: fx.Node, flow: Flow) -> Extents:
    x = node.args[0]
    order = node.args[1] if len(node.args) > 1 else node.kwargs.get("ord", 2)
    order = 2 if order is None else order
    if not isinstance(order, (int, float)):
        raise Refusal(reasons.OVER_AXIS, op=f"a norm of order {order}")
    dims, keep = reduced_dims(node, 2)
    if math.isinf(order) and not all(guarded(number(flow.of(x)[d].length) >= 1) for d in dims & flow.of(x).keys()):
        raise Refusal(reasons.TOO_FEW, op=node.target)
    flow.fill(node, x, dims, 0 if order >= 0 else float("inf"))
    return left(flow.of(x), dims, keep)


@rule(aten.var, aten.std)
def spread(node: fx.Node, flow: Flow) -> Extents:
    x, own = node.args[0], flow.of(node.args[0])
    dims, keep, correction = _spread_arguments(node)
    counted = {d: own[d] for d in dims if d in own}
    if counted:
        if correction in flow.positions or x.meta["val"].dtype.is_complex:  # type: ignore[union-attr]
            raise Refusal(reasons.OVER_AXIS, op=f"{node.target} of complex numbers, or with a correction that is a position")
        flow.fill(node, x, dims, 0)
        root = "std" in str(node.target)
        flow.replace(node, lambda b: _spread(b, x, sorted(dims), keep, counted, correction, root))
    return left(own, dims, keep)


def _spread(b: Any, x: Any, dims: list[int], keep: bool, counted: Extents, correction: Any, root: bool) -> fx.Node:
    value = x.meta["val"]
    wide = b.accumulated_in(value.dtype)
    mean = b.mean(x, dims, True, counted, wide)
    away = b.call(aten.sub.Tensor, b.operand(b.node, x), mean)
    squares = b.filled(b.call(aten.mul.Tensor, away, away), value, counted, 0)
    count = b.call(aten.sub.Tensor, b.count(x, dims, counted), correction)
    count = b.call(aten.to.dtype, b.call(aten.clamp_min.default, count, 0), wide)
    out = b.call(aten.div.Tensor, b.call(aten.sum.dim_IntList, squares, dims, keep), count)
    out = b.call(aten.sqrt.default, out) if root else out
    return out if wide is value.dtype else b.call(aten.to.dtype, out, value.dtype)


def _spread_arguments(node: fx.Node) -> tuple[set[int], bool, Any]:
    """The reduced dims, `keepdim` and the correction, for each of the overloads."""
    if node.target in (aten.var.default, aten.std.default):  # (x, unbiased)
        unbiased = node.args[1] if len(node.args) > 1 else node.kwargs.get("unbiased", True)
        return set(range(node.args[0].meta["val"].dim())), False, int(bool(unbiased))  # type: ignore[union-attr]
    if node.target in (aten.var.dim, aten.std.dim):  # (x, dim, unbiased, keepdim)
        unbiased = node.args[2] if len(node.args) > 2 else node.kwargs.get("unbiased", True)
        keep = node.args[3] if len(node.args) > 3 else node.kwargs.get("keepdim", False)
        return reduced_dims(node)[0], bool(keep), int(bool(unbiased))
    if node.target in (aten.var.correction, aten.std.correction):  # (x, dim, *, correction, keepdim)
        given = node.kwargs.get("correction")
        return reduced_dims(node)[0], bool(node.kwargs.get("keepdim", False)), 1 if given is None else given
    raise Refusal(reasons.NO_RULE, op=node.target)
