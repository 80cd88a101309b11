"""Lookups by an index tensor: where the index is not valid it may hold anything, so it is made 0.

embedding(table, distance)          {1: e} of distance     ->     embedding(table, masked_fill(distance, invalid, 0))
index_select(mask, 0, rows)         {1: e} of mask passes
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal

aten = torch.ops.aten


@rule(aten.embedding)
def embedding(node: fx.Node, flow: Flow) -> Extents:
    weight, indices = node.args[:2]
    if 1 in flow.of(weight):
        raise Refusal("a table of embeddings whose width depends on the position")
    flow.fill(node, indices, flow.of(indices), 0)
    return dict(flow.of(indices))


@rule(aten.index_select)
def index_select(node: fx.Node, flow: Flow) -> Extents:
    x, dim, index = node.args
    dim %= node.meta["val"].dim()  # type: ignore[operator]
    flow.fill(node, index, flow.of(index), 0)
    out = {d: e for d, e in flow.of(x).items() if d != dim}
    for extent in flow.of(index).values():
        out[dim] = extent
    return out


@rule(aten.gather)
def gather(node: fx.Node, flow: Flow) -> Extents:
    _, _, index = node.args[:3]
    flow.fill(node, index, flow.of(index), 0)
    return dict(flow.of(index))


@rule(aten.index.Tensor)
def index(node: fx.Node, flow: Flow) -> Extents:
    """``x[..., rows, :]`` with index tensors in one row of dims; a negative index would count from the wrong end."""
    x, indices = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    used = [d for d, i in enumerate(indices) if i is not None]
    if any(d in flow.of(x) for d in used):
        raise Refusal("the position-dependent axis is indexed with a tensor")
    if any(i.meta["val"].dtype is torch.bool for i in indices if i is not None):
        raise Refusal("a lookup with a boolean mask")
    if used != list(range(used[0], used[-1] + 1)):
        raise Refusal("a lookup along dims that are not next to each other")
    rank = max(indices[d].meta["val"].dim() for d in used)
    out: Extents = {}
    for d in used:
        flow.fill(node, indices[d], flow.of(indices[d]), 0)
        shift = used[0] + rank - indices[d].meta["val"].dim()
        out = flow.merge(out, {shift + own: e for own, e in flow.of(indices[d]).items()})
    _refuse_loose(node, flow, [indices[d] for d in used], rank, used[0], out)
    passed = {d if d < used[0] else d + rank - len(used): e for d, e in flow.of(x).items()}
    return {**passed, **out}


def _refuse_loose(node: fx.Node, flow: Flow, operands: list[Any], rank: int, first: int, out: Extents) -> None:
    for operand in operands:
        shape = operand.meta["val"].shape
        for dim in out:
            own = dim - first - rank + len(shape)
            if own >= 0 and own not in flow.of(operand) and not (isinstance(shape[own], int) and shape[own] == 1):
                raise Refusal(f"an operand of {node.target} has the valid length but does not come from the buffer")
