"""What the nodes of a graph give: one value, several of them, as `unbind` does, or none."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def is_tensor(value: Any) -> bool:
    """Whether ``value``, an argument of a node, is a node that gives one tensor."""
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)


def values_of(node: fx.Node) -> list[Any]:
    """The values that ``node`` gives; none for an op that only writes."""
    value = node.meta.get("val")
    if value is None:
        return []
    return list(value) if isinstance(value, (tuple, list)) else [value]


def tensors_of(node: fx.Node) -> list[torch.Tensor]:
    """The tensors among the values that ``node`` gives."""
    return [value for value in values_of(node) if isinstance(value, torch.Tensor)]
