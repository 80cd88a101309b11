"""What operators declare of themselves, and which memory a tensor lies in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.operators import HigherOrderOperator, OpOverload

ITEM = {torch.ops.aten.item.default, torch.ops.aten._local_scalar_dense.default}
"""The operators that read a number from a tensor."""


def memory_of(value: Any) -> int | None:
    """An id of the storage of ``value``; None if it is no strided tensor."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    try:
        return value.untyped_storage()._cdata
    except NotImplementedError:  # inside of a transform
        return None


def is_operator(target: Any) -> bool:
    """Whether ``target`` is an operator's overload, which has a schema and tags."""
    return isinstance(target, OpOverload)


def is_custom(target: Any) -> bool:
    """Whether ``target`` is an operator of another library than PyTorch and kvfix."""
    return is_operator(target) and target.namespace not in ("aten", "prims", "kvfix")


def is_higher_order(target: Any) -> bool:
    """Whether ``target`` takes functions or graphs."""
    return isinstance(target, HigherOrderOperator)


def is_transform(target: Any) -> bool:
    """Whether ``target`` is a step of `torch.vmap` or of a transform of `torch.func`. Tensors between these have no storage."""
    return "functorch" in str(getattr(target, "__module__", ""))


def is_tagged(target: Any, tag: torch.Tag) -> bool:
    """Whether ``target`` is an operator with ``tag``."""
    return is_operator(target) and tag in target.tags


def written_operands(node: fx.Node) -> Iterator[Any]:
    """The arguments of ``node`` that its operator declares to write to."""
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.alias_info is not None and argument.alias_info.is_write:
            by_name = argument.kwarg_only or i >= len(node.args)
            yield node.kwargs.get(argument.name) if by_name else node.args[i]


def arguments_by_name(node: fx.Node) -> dict[str, Any]:
    """The arguments that ``node`` gives its operator, by name. Those that it leaves out are missing."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return {**dict(zip(names[: len(node.args)], node.args, strict=True)), **node.kwargs}
