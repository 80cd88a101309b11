"""In-place ops on a part of a buffer whose size depends on a position: the rest of the buffer keeps its contents.

copy_(buf[:, :end], x)          {1: e} of x         ->      copy_(buf, where(valid, copy of buf with x written, buf))
mul_(buf[:, :end], 0.5)                             ->      copy_(buf, where(valid, buf * 0.5, buf))
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import RULES, Extents, Flow
from fxpass.errors import Refusal
from fxpass.graph import aliases

from .pointwise import broadcast

aten = torch.ops.aten
_ALSO = {
    aten.copy_.default,
    aten.fill_.Scalar,
    aten.fill_.Tensor,
    aten.masked_fill_.Scalar,
    aten.masked_fill_.Tensor,
    aten.zero_.default,
}


def stores(node: fx.Node, flow: Flow) -> Extents:
    """The rule of every in-place op whose target has an extent."""
    target: Any = node.args[0]
    refuse_writer(node, flow)
    operands = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, fx.Node)]
    out = broadcast(node, flow, operands)
    if out.keys() != flow.of(target).keys():
        raise Refusal(
            reasons.PART_WRITTEN, op=node.target, what="a position-dependent number of values, along another axis,"
        )
    given = node.args[1:], node.kwargs
    flow.replace(node, lambda b: _stored(b, node, target, given, out))
    return out


def refuse_writer(node: fx.Node, flow: Flow) -> None:
    """Refuse an in-place op that cannot be done on a copy of its target.

    Raises:
        Refusal: it is not pointwise, or takes a position.
    """
    pointwise = torch.Tag.pointwise in node.target.tags  # type: ignore[union-attr]
    if aliases.written(node) != [node.args[0]] or not (pointwise or node.target in _ALSO):
        raise Refusal(reasons.PART_WRITTEN, op=node.target, what="in place")
    if any(i in flow.positions for i in node.all_input_nodes):
        raise Refusal(reasons.PART_WRITTEN, op=node.target, what="a position")


def _stored(b: Any, node: fx.Node, target: fx.Node, given: Any, extents: Extents) -> fx.Node:
    whole = b.current(b.operand(node, target))
    new = b.call(aten.clone.default, whole)
    args, kwargs = fx.node.map_arg(given, lambda operand: b.operand(node, operand))
    b.call(node.target, new, *args, **kwargs)
    for dim, extent in extents.items():
        new = b.call(aten.where.self, b.valid_along(extent, target.meta["val"], dim), new, whole)
    return b.call(aten.copy_.default, whole, new)


RULES["stores"] = stores
