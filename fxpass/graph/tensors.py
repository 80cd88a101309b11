"""Which nodes of a graph are tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def is_tensor(value: Any) -> bool:
    """Whether ``value``, an argument of a node, is a node that gives one tensor. `unbind` gives several, and is none."""
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)
