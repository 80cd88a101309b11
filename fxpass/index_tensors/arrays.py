"""The arrays that hold the contents of the small tensors of a graph, and which of them share memory.

    v = idx[1:]            a view in PyTorch      ->      a view in numpy
    w = idx + 1            memory of its own      ->      a copy in numpy
    unknown(v)             may write to v         ->      idx and v are lost: their contents are not known any more
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import fx

from fxpass.graph.schemas import memory_of

from .contents import Element
from .small_tensors import is_small_int, shape_of


class Arrays:
    """The array of each small tensor of ``graph`` whose contents are known."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self._of: dict[fx.Node, np.ndarray] = {}
        self._views: dict[fx.Node, list[np.ndarray]] = {}
        """The arrays of ops that give several views, such as ``unbind``."""
        self._lost: set[fx.Node] = set()

    def clear(self) -> None:
        """Forget everything, also what has been lost."""
        self._of.clear()
        self._views.clear()
        self._lost.clear()

    @property
    def known(self) -> Sequence[fx.Node]:
        """The tensors that have arrays."""
        return list(self._of)

    def get(self, node: fx.Node) -> np.ndarray | None:
        """The array of ``node``; None where its contents are not known."""
        return self._of.get(node)

    def held(self, node: fx.Node) -> np.ndarray | list[np.ndarray] | None:
        """The array of ``node``, or those of the views that it gives."""
        return self._views[node] if node in self._views else self._of.get(node)

    def may_start(self, placeholder: fx.Node) -> bool:
        """Whether the graph input ``placeholder`` can be an index tensor that has no array yet."""
        return placeholder not in self._of and placeholder not in self._lost and is_small_int(placeholder)

    def start(self, placeholder: fx.Node) -> None:
        """Give the graph input ``placeholder`` an array of the elements that it has at the start of the call."""
        shape = shape_of(placeholder)
        flat = np.empty(math.prod(shape), dtype=object)
        for i in range(flat.size):
            flat[i] = Element(placeholder, i)
        self._of[placeholder] = flat.reshape(shape)

    def give_up(self, placeholder: fx.Node) -> None:
        """The graph input ``placeholder`` gets no array: what it holds at the start of the call has been overwritten."""
        self._lost.add(placeholder)

    def put(self, node: fx.Node, array: np.ndarray) -> None:
        """``node`` is a new tensor that holds ``array``."""
        self._of[node] = array

    def put_views(self, node: fx.Node, arrays: list[np.ndarray]) -> None:
        """``node`` gives several views, which are ``arrays``."""
        self._views[node] = arrays

    def put_result(self, node: fx.Node, out: np.ndarray) -> None:
        """``node`` holds ``out``, which shares memory with the operands where PyTorch's result does.

        Nothing is known of ``node`` where PyTorch's result is a view and ``out`` is not, or where ``out`` has another shape.
        """
        if out.shape != shape_of(node):
            return
        for source in node.all_input_nodes:
            array = self._of.get(source)
            if array is None:
                continue
            shared = np.shares_memory(out, array)
            if memory(source) == memory(node) and not shared:
                return
            if shared and memory(source) != memory(node):
                out = out.copy()
        self._of[node] = out

    def lose(self, node: fx.Node) -> None:
        """Forget the contents of everything that shares memory with ``node``: an op without a rule may have written there."""
        written = memory(node)
        nodes = (*self._of, *self.graph.nodes)
        lost = {n for n in nodes if n is node or written is not None and memory(n) == written}
        self._lost |= lost
        self._views.clear()  # they may be views of what is lost
        for other in lost & self._of.keys():
            del self._of[other]


def memory(node: fx.Node) -> Any:
    """What identifies the memory of the tensor ``node`` of a Dynamo graph; None for what is no tensor."""
    return memory_of(node.meta.get("example_value"))
