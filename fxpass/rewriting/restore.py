"""A graph as it was before it was edited, to go back to where a part of what was planned cannot be done.

restore = Restorable(gm)
restore.copy_once()               a copy, made once, before the first edit
...                          edits of gm.graph
nodes = restore.undo()    gm.graph is as it was; ``nodes`` maps its former nodes to those that stand for them now
"""

from __future__ import annotations

import copy

from torch import fx


class Restorable:
    """The graph of ``gm``, and how it was."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self._copy: fx.Graph | None = None
        self._nodes: dict[fx.Node, fx.Node] = {}

    def copy_once(self) -> None:
        """Copy the graph, unless that has been done already: it is about to be edited."""
        if self._copy is not None:
            return
        self._copy, self._nodes = fx.Graph(), {}
        for node in self.gm.graph.nodes:
            made = self._copy.node_copy(node, self._nodes.__getitem__)
            made.meta = copy.copy(node.meta)
            self._nodes[node] = made

    def undo(self) -> dict[fx.Node, fx.Node]:
        """Undo all edits since `copy_once`."""
        if self._copy is None:
            return {}
        self.gm.graph, nodes = self._copy, self._nodes
        self._copy, self._nodes = None, {}
        return nodes
