"""Rows that are put into a copy: each row of the result is one of the new rows, or what was there.

slice_scatter(k, x, 2, a, b)        row i is row i - a of x where a <= i < b, else row i of k
select_scatter(k, x, 2, -1)         row i is x where i is e - 1, else row i of k
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal

from .alignment import align
from .slices import from_the_front

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
    place = from_the_front(node, flow, own[dim], index, below=True)

    def build(b: Any) -> fx.Node:
        device, rank = x.meta["val"].device, x.meta["val"].dim()
        steps = b.call(aten.arange.default, b.full(own[dim]), device=device)
        there = b.along(b.call(aten.eq.Tensor, steps, b.tensor(place, device)), rank, dim)
        put = b.call(aten.to.dtype, b.call(aten.unsqueeze.default, b.operand(node, new), dim), x.meta["val"].dtype)
        return b.call(aten.where.self, there, put, b.operand(node, x))

    flow.replace(node, build)
    return own


@rule(aten.slice_scatter.default)
def slice_scatter(node: fx.Node, flow: Flow) -> Extents:
    """Along a dim without an extent, the extents of both tensors pass; along the axis it is refused."""
    x, new, dim = (*node.args, 0)[:3]
    dim = node.kwargs.get("dim", dim) % x.meta["val"].dim()  # type: ignore[operator, union-attr]
    own = dict(flow.of(x))
    if dim in own or own.keys() != flow.of(new).keys():
        raise Refusal(reasons.JOINED, how="into a copy along the position-dependent axis")
    return {d: align(node, flow, [(x, d), (new, d)]) for d in own}
