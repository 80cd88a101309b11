"""Which ops PyTorch can run again, on copies in host memory, with the same result.

    idx.cumsum(0), idx + 1              the same each time, and on any device
    torch.randint(4, (2,))              draws random numbers
    idx.argsort()                       on another device, equal elements may come in another order
    idx.as_strided((2,), (3,))          reaches memory that a copy does not have

On another device, ops on floats may give other results than on the host, too.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.operators import OpOverloadPacket

_CASTS = {"bool", "cpu", "double", "float", "int", "long"}
"""Methods that stand for operators of another name."""
_COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
"""Methods that Dynamo of torch 2.11 puts into the graph where others put a function of `operator`."""
_OF_MEMORY = {"as_strided", "as_strided_", "as_strided_copy", "as_strided_scatter", "resize_", "resize_as_", "set_"}
"""Ops that reach elements by their addresses."""
_PLACES = {"sort": 1, "topk": 1, "kthvalue": 1, "median": 1, "mode": 1, "max": 1, "min": 1}
"""For each op that chooses between equal elements, which of its results says where they are."""


def is_repeatable(name: str) -> bool:
    """Whether the op of PyTorch called ``name`` gives the same result on a copy each time: it draws no random numbers, and
    reaches no memory between or behind the elements."""
    if name in _CASTS or name in _COMPARISONS:
        return True
    if name in _OF_MEMORY:
        return False
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, OpOverloadPacket):
        return False
    tags = (getattr(packet, overload).tags for overload in packet.overloads())
    return not any(torch.Tag.nondeterministic_seeded in own for own in tags)


def is_same_anywhere(node: fx.Node, value: torch.Tensor) -> bool:
    """Whether the host gives the ``value`` of ``node`` as any device does."""
    source: Any = node.args[0] if node.target is operator.getitem else node
    name = source.target if isinstance(source.target, str) else source.target.__name__
    is_place = name == "argsort" or source is not node and _PLACES.get(name) == node.args[1]
    return not value.is_floating_point() and (not is_place or bool(source.kwargs.get("stable")))
