"""Who shares memory with whom, who writes, and in which order: program order is part of a graph's meaning.

Read off the fake tensors' storages and the operators' schemas.
"""

from __future__ import annotations

import torch
from torch import fx

from .schemas import is_custom, is_higher_order, is_operator, is_tagged, memory_of, written_operands


def storage(node: fx.Node) -> int | None:
    """An id of the memory behind the tensor ``node``, or None if it is no (plain) tensor."""
    return memory_of(node.meta.get("val"))


def storages(node: fx.Node) -> set[int]:
    """The memories behind ``node``, which may be a tuple of tensors."""
    value = node.meta.get("val")
    tensors = value if isinstance(value, (tuple, list)) else [value]
    return {own for t in tensors if (own := memory_of(t)) is not None}


def written(node: fx.Node) -> list[fx.Node]:
    """The arguments that ``node`` writes to, in place."""
    if node.op != "call_function" or not is_operator(node.target):
        return []
    values = (v if isinstance(v, (list, tuple)) else [v] for v in written_operands(node))
    return [v for several in values for v in several if isinstance(v, fx.Node)]


def base(node: fx.Node) -> fx.Node | None:
    """The operand that ``node``, which may be a tuple of tensors, is a view of, if there is one."""
    own = storages(node)
    if node.op != "call_function":
        return None
    return next((i for i in node.all_input_nodes if own & storages(i)), None)


def root(node: fx.Node) -> fx.Node:
    """The node that ``node`` is a view of, as far up as memory is shared."""
    while (parent := base(node)) is not None:
        node = parent
    return node


def is_impure(node: fx.Node) -> bool:
    """Whether ``node`` must stay even when nobody uses its result.

    Purity by schema, not by users: ``copy_`` and ``index_copy_`` have none and still count. Operators that are not PyTorch's
    may do what no schema tells.
    """
    if node.op in ("placeholder", "output"):
        return True
    if node.op != "call_function":
        return node.op != "get_attr"
    if written(node):
        return True
    name = str(node.target)
    if "_assert" in name or "constrain" in name or is_custom(node.target):
        return True
    return is_higher_order(node.target) or is_tagged(node.target, torch.Tag.nondeterministic_seeded)


def remove_dead(graph: fx.Graph) -> None:
    """Drop what nobody uses, by the schema's word on purity: an in-place op without users stays."""
    for node in reversed(list(graph.nodes)):
        if not node.users and not is_impure(node):
            graph.erase_node(node)
