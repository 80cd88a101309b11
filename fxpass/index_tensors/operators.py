"""The functions, methods and operators that PyTorch has under one name, as Dynamo's graphs call them.

A rule is looked up by the object that a node calls, since a user's own operator may be named `add` too. Only methods are looked
up by name: a graph names them, and the names are those of `torch.Tensor`.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import fx

from fxpass.graph.schemas import is_transform
from fxpass.torch_internals.operators import (
    HigherOrderOperator,
    OpOverload,
    OpOverloadPacket,
    autograd_functions,
    references,
)

T = TypeVar("T")
_TORCH = ("torch", "_operator", "math", "builtins", "einops")
"""Modules whose functions write to an operand only where their name says so."""


def by_operator(rules: Mapping[str, T]) -> dict[Any, T]:
    """``rules``, which are given by name, by everything that a node may call for such an op."""
    return {target: rule for name, rule in rules.items() for target in (name, *_called(name))}


def _called(name: str) -> Iterator[Any]:
    for owner in (torch, torch.Tensor, references, autograd_functions, operator):
        function = getattr(owner, name, None)
        if callable(function):
            yield function
    if name.endswith("_") and (function := getattr(operator, f"i{name[:-1]}", None)) is not None:
        yield function
    packet = getattr(torch.ops.aten, name, None)
    if isinstance(packet, OpOverloadPacket):
        yield packet
        yield from (getattr(packet, overload) for overload in packet.overloads())


def belongs_to_a_library(function: Any) -> bool:
    """Whether ``function`` belongs to PyTorch or to Python, and is no user's."""
    owners = (function, getattr(function, "__self__", None), getattr(function, "__objclass__", None))
    module = next((m for o in owners if (m := getattr(o, "__module__", None))), "")
    return module.split(".")[0] in _TORCH and "numpy" not in type(function).__name__


def may_write(node: fx.Node) -> list[fx.Node]:
    """The operands that ``node`` may write to. Where its target does not tell, these are all operands."""
    target, operands = node.target, node.all_input_nodes
    if isinstance(target, OpOverload):
        return operands if target._schema.is_mutable else []
    if isinstance(target, OpOverloadPacket):
        return operands if any(getattr(target, o)._schema.is_mutable for o in target.overloads()) else []
    if isinstance(target, HigherOrderOperator) or is_transform(target):
        return operands
    if not isinstance(target, str) and not belongs_to_a_library(target) or _is_told_to_write(node):
        return operands
    if not _is_in_place(target):
        return []
    return [node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else operands


def _is_told_to_write(node: fx.Node) -> bool:
    """Whether an argument of ``node`` tells it to write: ``relu(x, inplace=True)``, or by its place ``relu(x, True)``."""
    given = dict(zip(_parameters(node.target), node.args, strict=False)) | node.kwargs
    return given.get("out") is not None or bool(given.get("inplace"))


@functools.cache
def _parameters(target: Any) -> tuple[str, ...]:
    """The names of the parameters of ``target``, in order; none for a function that is not written in Python."""
    return tuple(inspect.signature(target).parameters) if inspect.isfunction(target) else ()


_IN_PLACE = {
    operator.setitem,
    *(
        fn
        for name, fn in vars(operator).items()
        if name[0] == "i" and {name[1:], name[1:] + "_"} & vars(operator).keys()
    ),
}


def _is_in_place(target: Any) -> bool:
    """Whether a function or method of PyTorch writes to its first operand: ``add_`` by its name, `operator.iadd`."""
    if target in _IN_PLACE:
        return True
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return name == "__setitem__" or name.startswith("__i") or name.endswith("_") and not name.endswith("__")
