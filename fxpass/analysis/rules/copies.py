"""Copies and casts: every axis stays where it is.

`contiguous` of a slice copies; of the full buffer, which is contiguous, it would not. So it becomes a copy: a later write to
the buffer must not be seen through the result.

    contiguous(buf[:, :end])      a copy      ->      clone(buf)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph import aliases

aten = torch.ops.aten


@rule(aten.clone, aten.alias, aten.detach, aten._to_copy, aten.lift_fresh, aten.lift_fresh_copy, aten.zeros_like,
      aten.ones_like, aten.empty_like, aten.full_like)  # fmt: skip
def same(node: fx.Node, flow: Flow) -> Extents:
    return dict(flow.of(node.args[0]))


@rule(aten.dropout)
def dropout(node: fx.Node, flow: Flow) -> Extents:
    """A copy in inference. In training it draws random numbers, and would draw others for the full buffer."""
    x, p, train = node.args
    if train and p:
        raise Refusal(reasons.DRAWS, op=node.target)
    return dict(flow.of(x))


@rule(aten.contiguous, aten.to)
def copy_if_needed(node: fx.Node, flow: Flow) -> Extents:
    x = node.args[0]
    if node.target is aten.contiguous.default and aliases.storage(x) != aliases.storage(node):
        flow.replace(node, lambda b: b.call(aten.clone.default, x, memory_format=torch.contiguous_format))
    return dict(flow.of(x))


@rule(aten.triu, aten.tril, aten.triu_, aten.tril_)
def triangle(node: fx.Node, flow: Flow) -> Extents:
    """``tril(x, d)`` keeps the elements with column - row <= d, whatever the number of rows and columns."""
    x, diagonal = node.args[0], node.args[1] if len(node.args) > 1 else 0
    if diagonal in flow.positions:

        def build(b: Any) -> fx.Node:
            made = b.triangle(node, x, diagonal)
            return b.call(aten.copy_.default, x, made) if aliases.written(node) else made

        flow.replace(node, build)
    return dict(flow.of(x))
