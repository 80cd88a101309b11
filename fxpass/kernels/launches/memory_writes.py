"""Where a graph writes to memory. This decides whether a kernel may read memory at another time than the ops that it
replaces."""

from __future__ import annotations

import operator
from collections.abc import Container

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.torch_internals.operators import OpOverload

aten = torch.ops.aten


class MemoryWrites:
    """Where ``graph`` writes to which memory."""

    def __init__(self, graph: fx.Graph) -> None:
        self._order = {n: i for i, n in enumerate(graph.nodes)}
        self._places: dict[int | None, list[int]] = {}
        self._writers: dict[int | None, list[tuple[fx.Node, fx.Node]]] = {}
        for node, place in self._order.items():
            for target in _may_write(node):
                self._places.setdefault(aliases.storage(target), []).append(place)
                self._writers.setdefault(aliases.storage(target), []).append((node, target))

    def between(self, first: fx.Node, last: fx.Node, memory: int | None) -> bool:
        """Whether an op between the two writes to ``memory``."""
        return any(self._order[first] < place < self._order[last] for place in self._places.get(memory, ()))

    def anywhere(self, memory: int | None) -> bool:
        """Whether an op writes to ``memory``."""
        return memory in self._places

    def only_by(self, writers: Container[fx.Node], node: fx.Node) -> bool:
        """Whether ``node`` lies in an input of the graph, and only ``writers`` write to elements of ``node``."""
        others = [target for by, target in self._writers.get(aliases.storage(node), ()) if by not in writers]
        given = aliases.root(node).op in ("placeholder", "get_attr")
        return given and all(_are_apart(node, other) for other in others)

    def stays(self, node: fx.Node) -> bool:
        """Whether ``node`` is an input of the graph that no op of it writes to."""
        return node.op in ("placeholder", "get_attr") and not self.anywhere(aliases.storage(node))


def _are_apart(one: fx.Node, other: fx.Node) -> bool:
    """Whether the two are different elements of one tensor along one dim."""
    if one.target is not aten.select.int or other.target is not aten.select.int or one.args[:2] != other.args[:2]:
        return False
    indices = one.args[2], other.args[2]
    return all(isinstance(i, int) and i >= 0 for i in indices) and indices[0] != indices[1]


def _may_write(node: fx.Node) -> list[fx.Node]:
    """The tensors that ``node`` writes to by its schema, or all that it takes where the schema does not say."""
    declares = isinstance(node.target, OpOverload) and node.target not in _SILENT
    if node.op != "call_function" or declares or node.target is operator.getitem:
        return aliases.written(node)
    return [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]


_SILENT = {aten.batch_norm.default, aten.instance_norm.default}
"""Operators that update running statistics, which their schemas do not tell."""
