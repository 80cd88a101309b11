"""Which nodes share memory, and which of them write to it.

The fake tensors' storages tell the former, the operators' schemas the latter.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

from .schemas import is_custom, is_higher_order, is_operator, is_tagged, memory_of, written_operands
from .values import tensors_of


def storage(node: fx.Node) -> int | None:
    """An id of the storage of the tensor ``node``; None if it is no strided tensor."""
    return memory_of(node.meta.get("val"))


def storages(node: fx.Node) -> set[int]:
    """The ids of the storages of ``node``, which may be a tuple of tensors."""
    return {own for t in tensors_of(node) if (own := memory_of(t)) is not None}


def written(node: fx.Node) -> list[fx.Node]:
    """The arguments that ``node`` writes to."""
    if node.op != "call_function" or not is_operator(node.target):
        return []
    values = (v if isinstance(v, (list, tuple)) else [v] for v in written_operands(node))
    return [v for several in values for v in several if isinstance(v, fx.Node)]


def written_inputs(graph: fx.Graph) -> set[fx.Node]:
    """The placeholders of ``graph`` that it writes to."""
    roots = {root(w) for n in graph.nodes for w in written(n)}
    return {n for n in roots if n.op == "placeholder"}


def written_places(graph: fx.Graph, more: Collection[fx.Node] = ()) -> list[int]:
    """The places of the arguments that ``graph`` writes to, and of those for its placeholders in ``more``."""
    targets = written_inputs(graph) | set(more)
    return [i for i, n in enumerate(graph.find_nodes(op="placeholder")) if n in targets]


def base(node: fx.Node) -> fx.Node | None:
    """The operand that ``node`` is a view of; None if there is none. ``node`` may be a tuple of views."""
    own = storages(node)
    if node.op != "call_function":
        return None
    return next((i for i in node.all_input_nodes if own & storages(i)), None)


def root(node: fx.Node) -> fx.Node:
    """The node at the start of the chain of views that ends in ``node``: itself if it is no view."""
    while (parent := base(node)) is not None:
        node = parent
    return node


def writes_by_storage(graph: fx.Graph) -> dict[int | None, list[fx.Node]]:
    """The ops of ``graph`` that write, in order, by the storage that they write to."""
    out: dict[int | None, list[fx.Node]] = {}
    for node in graph.nodes:
        for target in written(node):
            out.setdefault(storage(target), []).append(node)
    return out


def view_users(node: fx.Node) -> set[fx.Node]:
    """All users of ``node`` and of its views."""
    views, todo = {node}, [node]
    while todo:
        for user in todo.pop().users:
            if user not in views and is_view_of(user, views):
                views.add(user)
                todo.append(user)
    return {user for view in views for user in view.users}


def is_view_of(node: fx.Node, views: set[fx.Node]) -> bool:
    """Whether ``node``, a user of one of ``views``, is a view too: an in-place op returns what it has written to."""
    own = storages(node)  # several for a tuple of views
    shares = any(own & storages(i) for i in node.all_input_nodes if i in views)
    targets = written(node)
    return shares and (not targets or not views.isdisjoint(targets))


def is_impure(node: fx.Node) -> bool:
    """Whether ``node`` must stay even if nobody uses its result.

    It must if its operator writes to an argument, asserts something, or draws random numbers. An operator of another library
    may do more than its schema tells, so it stays too.
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
    """Erase the nodes that nobody uses and that `is_impure` does not keep."""
    for node in reversed(list(graph.nodes)):
        if not node.users and not is_impure(node):
            graph.erase_node(node)
