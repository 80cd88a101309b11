"""What the nodes of a graph give: one value, several of them, as `unbind` does, or none.

    node.meta["example_value"]      in a graph from Dynamo, also while it is being captured
    node.meta["val"]                in any other, and in normal form
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def is_tensor(value: Any) -> bool:
    """Whether ``value``, an argument of a node, is a node that gives one tensor."""
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)


def example_value(value: Any) -> Any:
    """What ``value``, an operand of an op that Dynamo is capturing, stands for: a fake tensor or a number. None if it is no
    proxy, but a constant."""
    return value.node.meta.get("example_value") if isinstance(value, fx.Proxy) else None


def fake_value(node: fx.Node) -> Any:
    """The fake value that ``node`` gives, in a graph from Dynamo or in any other."""
    return node.meta.get("example_value", node.meta.get("val"))


def values_of(node: fx.Node) -> list[Any]:
    """The values that ``node`` gives; none for an op that only writes."""
    value = node.meta.get("val")
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]


def tensors_of(node: fx.Node) -> list[torch.Tensor]:
    """The tensors among the values that ``node`` gives."""
    return [value for value in values_of(node) if isinstance(value, torch.Tensor)]
