"""Undoing the edits of a graph.

    restorable = Restorable(gm)
    restorable.copy_once()            copies the graph, before the first edit
    ...                               edits of gm.graph
    nodes = restorable.undo()         gm.graph is as it was; ``nodes`` maps its former nodes to those of the copy
"""

from __future__ import annotations

from torch import fx

from fxpass.graph.extract import copied_graph


class Restorable:
    """The graph of ``gm``, with a copy from before its first edit."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self._copy: fx.Graph | None = None
        self._nodes: dict[fx.Node, fx.Node] = {}

    def copy_once(self) -> None:
        """Copy the graph, which is about to be edited, unless there is a copy already."""
        if self._copy is None:
            self._copy, self._nodes = copied_graph(self.gm.graph)

    def undo(self) -> dict[fx.Node, fx.Node]:
        """Put the copy in the place of the graph. Gives a map from the graph's nodes to its own, which is empty without a
        copy."""
        if self._copy is None:
            return {}
        self.gm.graph, nodes = self._copy, self._nodes
        self._copy, self._nodes = None, {}
        return nodes
