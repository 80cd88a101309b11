"""Who shares memory with whom, who writes, and in which order: program order is part of a graph's meaning.

Read off the fake tensors' storages and the operators' schemas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def storage(node: fx.Node) -> int | None:
    """An id of the memory behind the tensor ``node``, or None if it is no (plain) tensor."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    return value.untyped_storage()._cdata


def storages(node: fx.Node) -> set[int]:
    """The memories behind ``node``, which may be a tuple of tensors."""
    value = node.meta.get("val")
    tensors = value if isinstance(value, (tuple, list)) else [value]
    return {t.untyped_storage()._cdata for t in tensors if isinstance(t, torch.Tensor) and t.layout is torch.strided}


def written(node: fx.Node) -> list[fx.Node]:
    """The arguments that ``node`` writes to, in place."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
        return []
    found: list[fx.Node] = []
    for i, argument in enumerate(node.target._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        value: Any = node.kwargs.get(argument.name) if argument.kwarg_only or i >= len(node.args) else node.args[i]
        found += [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, fx.Node)]
    return found


def base(node: fx.Node) -> fx.Node | None:
    """The operand that ``node`` is a view of, if there is one."""
    memory = storage(node)
    if node.op != "call_function" or memory is None:
        return None
    return next((i for i in node.all_input_nodes if storage(i) == memory), None)


def root(node: fx.Node) -> fx.Node:
    """The node that ``node`` is a view of, as far up as memory is shared."""
    while (parent := base(node)) is not None:
        node = parent
    return node


def is_impure(node: fx.Node) -> bool:
    """Whether ``node`` must stay even when nobody uses its result.

    Purity by schema, not by users: ``copy_`` and ``index_copy_`` have none and still count.
    """
    if node.op in ("placeholder", "output"):
        return True
    if node.op != "call_function":
        return node.op != "get_attr"
    if written(node):
        return True
    name = str(node.target)
    if "_assert" in name or "constrain" in name:
        return True
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return True
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def remove_dead(graph: fx.Graph) -> None:
    """Drop what nobody uses, by the schema's word on purity: an in-place op without users stays."""
    for node in reversed(list(graph.nodes)):
        if not node.users and not is_impure(node):
            graph.erase_node(node)
