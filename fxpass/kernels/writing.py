"""Where a graph writes to memory. It decides whether a kernel may read at another time than the ops that it replaces."""

from __future__ import annotations

import operator

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.torch_internals.operators import OpOverload

aten = torch.ops.aten


class Writing:
    """Where ``graph`` writes to which memory."""

    def __init__(self, graph: fx.Graph) -> None:
        self._order = {n: i for i, n in enumerate(graph.nodes)}
        self._places: dict[int | None, list[int]] = {}
        for node, place in self._order.items():
            for target in _may_write(node):
                self._places.setdefault(aliases.storage(target), []).append(place)

    def between(self, first: fx.Node, last: fx.Node, memory: int | None) -> bool:
        """Whether an op between the two writes to ``memory``."""
        return any(self._order[first] < place < self._order[last] for place in self._places.get(memory, ()))

    def anywhere(self, memory: int | None) -> bool:
        """Whether an op writes to ``memory``."""
        return memory in self._places

    def stays(self, node: fx.Node) -> bool:
        """Whether ``node`` is an input of the graph that no op of it writes to."""
        return node.op in ("placeholder", "get_attr") and not self.anywhere(aliases.storage(node))


def _may_write(node: fx.Node) -> list[fx.Node]:
    """What ``node`` writes to: by its schema, or all that it takes where that does not say."""
    declares = isinstance(node.target, OpOverload) and node.target not in _SILENT
    if node.op != "call_function" or declares or node.target is operator.getitem:
        return aliases.written(node)
    return [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), torch.Tensor)]


_SILENT = {aten.batch_norm.default, aten.instance_norm.default}
"""Update their running statistics, which their schemas do not tell."""
