"""Assertions that a graph makes about a position become assertions about its tensor twin.

    ok = le(u0, 7)
    _assert_scalar(ok, "u0 <= 7")         ->        _assert_async(le(u0_t, 7), "u0 <= 7")

An assertion keeps a write by index within its buffer where no guard does, so it stays. Only the read of the number goes.
"""

from __future__ import annotations

import torch
from torch import fx

from fxpass.analysis.positions import Positions
from fxpass.rewriting.nodes.builder import Builder

aten = torch.ops.aten


def asserts_position(node: fx.Node, positions: Positions) -> bool:
    """Whether ``node`` asserts something about a position."""
    return node.target is aten._assert_scalar.default and node.args[0] in positions


def rewrite_assertion(node: fx.Node, b: Builder) -> None:
    """Rewrite the assertion ``node`` in place.

    Raises:
        Refusal: the condition has no tensor twin.
    """
    condition, message = node.args
    device = _device_of(condition)
    b.call(aten._assert_async.msg, b.twin(condition, device), message)
    b.drop(node)


def _device_of(condition: object) -> torch.device:
    """The device of the tensor that the numbers in ``condition`` are read from."""
    todo = [condition]
    while todo:
        node = todo.pop()
        if isinstance(node, fx.Node):
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor):
                return value.device
            todo += node.all_input_nodes
    return torch.device("cpu")
