"""What makes a graph as a whole unfit for the rewrite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import Reasoned
from fxpass.torch_internals.fakes import FakeTensor, set_grad_enabled

from .schemas import is_transform
from .source_lines import source_of
from .values import fake_value

_SETTINGS = frozenset(fn for name, fn in vars(torch).items() if name.startswith("set_")) - {torch.set_grad_enabled}
"""What they set holds for the ops behind them, in the graph and after it."""


class Unfit(Reasoned):
    """The graph as a whole cannot be rewritten."""


def refuse_autograd(gm: fx.GraphModule, inputs: Sequence[Any]) -> None:
    """Refuse a graph that autograd would have to follow, or that is called under autocast.

    Raises:
        Unfit: the graph is one of these.
    """
    needs_grad = any(isinstance(v, torch.Tensor) and v.requires_grad for v in inputs)
    if torch.is_grad_enabled() and needs_grad:
        raise Unfit(reasons.GRAD, what="an input")
    kinds = {v.device.type for v in inputs if isinstance(v, torch.Tensor)}
    if any(torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) for kind in kinds):
        raise Unfit(reasons.AUTOCAST, where="around the call")
    enabled = torch.is_grad_enabled()
    for node in gm.graph.nodes:
        if node.target is set_grad_enabled:
            enabled = node.args[0]
        elif enabled and needs_grad and any(_requires_grad(n) for n in node.all_input_nodes) and node.op != "output":
            raise Unfit(reasons.GRAD, what="what a region of the graph takes")


def refuse_transforms(gm: fx.GraphModule) -> None:
    """Refuse a graph with a transform of `torch.func`, between whose steps tensors have no storage.

    Raises:
        Unfit: there is one.
    """
    for node in gm.graph.nodes:
        if is_transform(node.target):
            raise Unfit(reasons.TRANSFORM, where=source_of(node) or node.name)


def refuse_settings(gm: fx.GraphModule) -> None:
    """Refuse a graph that changes a setting of PyTorch's, such as the default dtype, for the ops that follow.

    Raises:
        Unfit: it does.
    """
    where = ""
    for node in reversed(gm.graph.nodes):  # such a call has no line of its own
        where = source_of(node) or where
        if node.op == "call_function" and node.target in _SETTINGS:
            raise Unfit(reasons.SETS, function=node.target.__name__, where=where or node.name)


def refuse_attributes(traced: fx.GraphModule) -> None:
    """Refuse a traced graph that holds graphs of its own, or tensors that it is not given.

    Raises:
        Unfit: it does.
    """
    for node in traced.graph.find_nodes(op="get_attr"):
        held = getattr(traced, node.target, None)
        users = ", ".join(dict.fromkeys(source_of(user) or user.name for user in node.users))
        if isinstance(held, fx.GraphModule):
            raise Unfit(reasons.OWN_GRAPHS, where=users)
        if isinstance(held, FakeTensor):
            raise Unfit(reasons.UNSEEN, where=users)


def _requires_grad(node: fx.Node) -> bool:
    value = fake_value(node)
    return node.op in ("placeholder", "get_attr") and isinstance(value, torch.Tensor) and value.requires_grad
