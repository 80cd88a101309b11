"""Which numbers of a graph are positions: computed from an index tensor's elements or from an int argument.

    s0 = placeholder                  a position: element 0 of `idx`, or a Python int of the caller
    u0 = aten.item(select(idx, 0, 0)) a position: read inside the graph (torch.export)
    end = s0 + 1                      a position: arithmetic on one
    t = sym_size(x, 2)                not a position: a size of an input

The graph tells which numbers are positions, not the symbols. A guard such as ``T == 8 * s0 + 8`` may replace the symbol of the
size `T` by an expression in `s0`; the size is no position for that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from fxpass.graph.numbers import Derived, number, symbols
from fxpass.graph.schemas import ITEM
from fxpass.graph.values import is_tensor
from fxpass.index_tensors.contents import Extreme


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the number of a placeholder that is a position comes from.

    name: what the report calls it.
    tensor: the graph input that holds the number; None for a Python int.
    index: the row-major index of the number in ``tensor``.
    extreme: of which of its elements the number is the largest or the smallest, where it is no single one.
    """

    name: str
    tensor: fx.Node | None = None
    index: int = 0
    extreme: Extreme | None = None

    def moved(self, nodes: Mapping[fx.Node, fx.Node]) -> Origin:
        """The same origin in a copy of the graph; ``nodes`` maps the former inputs to those of the copy."""
        return self if self.tensor is None else dataclasses.replace(self, tensor=nodes[self.tensor])


class Positions:
    """The nodes of ``graph`` that are positions. ``origins`` are its placeholders among them.

    ``symbols`` are the symbols that occur in positions.
    """

    def __init__(self, graph: fx.Graph, origins: Mapping[fx.Node, Origin]) -> None:
        self.origins = dict(origins)
        self._aliases: dict[fx.Node, Any] = {}
        self._known: set[fx.Node] = set(origins)
        for node in graph.nodes:
            if node.target in ITEM and not node.args[0].meta["val"].dtype.is_floating_point:
                self._known.add(node)
            elif is_scalar(node) and any(i in self._known for i in node.all_input_nodes):
                self._known.add(node)
        leaves = [n for n in graph.nodes if n in self.origins or (n in self._known and n.target in ITEM)]
        self.symbols = {symbol for leaf in leaves for symbol in symbols(leaf.meta["val"])}

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, Derived) or (isinstance(value, fx.Node) and value in self._known)

    def move(self, value: Any) -> bool:
        """Whether ``value`` changes when a position does."""
        return bool(symbols(number(value)) & self.symbols)

    def alias(self, node: fx.Node, length: Any) -> None:
        """Note that ``node``, a ``sym_size``, equals the position ``length``. Numbers made from it are positions too."""
        self._aliases[node] = length
        self._add(node)

    def resolve(self, value: Any) -> Any:
        """The position that ``value`` was noted to equal; ``value`` itself if there is none."""
        while value in self._aliases:
            value = self._aliases[value]
        return value

    def _add(self, node: fx.Node) -> None:
        self._known.add(node)
        for user in node.users:
            if is_scalar(user) and user not in self._known:
                self._add(user)


def is_scalar(node: fx.Node) -> bool:
    """Whether ``node`` computes a number from numbers alone."""
    if node.op != "call_function" or isinstance(node.meta.get("val"), (torch.Tensor, tuple, list, type(None))):
        return False
    return all(not is_tensor(i) for i in node.all_input_nodes)
