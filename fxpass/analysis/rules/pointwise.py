"""Pointwise ops: the extents of the operands are lined up by broadcasting. The invalid part of the result may hold anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import RULES, Extents, Flow, rule
from fxpass.graph.values import is_tensor

from .alignment import align, check_aligned

aten = torch.ops.aten


@rule(aten.masked_fill, aten.where, aten.logical_not, aten.logical_and, aten.logical_or, aten.masked_fill_, aten.copy_,
      aten.fill, aten.fill_, aten.zero, aten.zero_)  # fmt: skip
def pointwise(node: fx.Node, flow: Flow) -> Extents:
    return broadcast(node, flow, [a for a in (*node.args, *node.kwargs.values()) if is_tensor(a)])


@rule(aten.remainder, aten.fmod, aten.floor_divide, aten.div.Tensor_mode)
def divided(node: fx.Node, flow: Flow) -> Extents:
    """Integer division. A zero in the invalid part would raise an error."""
    divisor = node.args[1]
    if is_tensor(divisor) and not divisor.meta["val"].dtype.is_floating_point:  # type: ignore[union-attr]
        flow.fill(node, divisor, flow.of(divisor), 1)
    return pointwise(node, flow)


def broadcast(node: fx.Node, flow: Flow, operands: Sequence[Any], also: Extents | None = None) -> Extents:
    """The extents of ``operands``, lined up from the right, merged with ``also``, which are on dims of the result.

    Raises:
        Refusal: an operand has the valid length on an axis, but does not come from a buffer.
    """
    value = node.meta["val"]
    rank = (value[0] if isinstance(value, (tuple, list)) else value).dim()
    out: Extents = dict(also or {})
    for dim in range(rank):
        present = [(o, own) for o in operands if (own := dim - rank + o.meta["val"].dim()) >= 0]
        places = [(o, own) for o, own in present if own in flow.of(o)]
        if places:
            out = flow.merge(out, {dim: align(node, flow, places)})
        if dim in out:
            for operand, own in present:
                check_aligned(node, flow, operand, [own])
    return out


RULES["pointwise"] = pointwise
