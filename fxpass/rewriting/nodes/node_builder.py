"""Inserting nodes into a graph, one place after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import fx

from fxpass.analysis.kinds import Kinds
from fxpass.graph import insertion
from fxpass.graph.insertion import take_line
from fxpass.graph.marks import Marks
from fxpass.graph.numbers import Derived, derivation
from fxpass.torch_internals.operators import tree_leaves

from .twins import Twins

aten = torch.ops.aten
Self = TypeVar("Self", bound="NodeBuilder")


class NodeBuilder:
    """Inserts nodes before the current node of ``graph``, which `at` sets, and gives them the source line of that node.

    A node that has been replaced may still be passed: what stands for it by then is used.
    """

    def __init__(self, graph: fx.Graph, twins: Twins, kinds: Kinds) -> None:
        self.graph = graph
        self.twins = twins
        self._kinds = kinds
        self.node: fx.Node = next(iter(graph.nodes))
        self.marks = Marks()
        self.dropped: list[fx.Node] = []
        """The nodes to be erased at the end of the sweep."""
        self._made: set[fx.Node] = set()
        self._replaced: dict[fx.Node, Any] = {}

    def at(self: Self, node: fx.Node) -> Self:
        """This builder, which inserts before ``node`` from here on."""
        self.node = node
        return self

    @property
    def device(self) -> torch.device:
        """The device of the current node, a tensor."""
        return self.node.meta["val"].device

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A new call of ``target`` before the current node.

        Raises:
            TypeError: an argument is a symbolic number, and no node.
        """
        if any(
            isinstance(a, (torch.SymInt, torch.SymFloat, torch.SymBool, Derived)) for a in tree_leaves((args, kwargs))
        ):
            raise TypeError(f"a number that is no node, in the arguments of {target}")
        args, kwargs = fx.node.map_arg((args, kwargs), self.current)
        with self.graph.inserting_before(self.node):
            made = self.graph.call_function(target, args, kwargs)
        self._made.add(made)
        take_line(made, self.node)
        return made

    def replace(self, node: fx.Node, new: Any) -> None:
        """Let every user of ``node`` take ``new`` instead."""
        self._replaced[node] = new
        if isinstance(new, fx.Node):
            new.meta.setdefault("val", node.meta["val"])  # its dtype and rank, until values are propagated anew
        node.replace_all_uses_with(new)

    def drop(self, node: fx.Node) -> None:
        """Erase ``node``, which has been replaced, at the end of the sweep, even if it is impure."""
        self.dropped.append(node)

    def current(self, node: fx.Node) -> Any:
        """What stands for ``node`` by now."""
        return self._replaced.get(node, node)

    def is_new(self, node: fx.Node) -> bool:
        """Whether this builder has made ``node``."""
        return node in self._made

    def size(self, node: fx.Node, dim: int) -> Any:
        """The size of ``node`` along ``dim`` as an argument: an int, or a node that gives it."""
        made = insertion.size_argument(self.call, node, dim)
        if isinstance(made, fx.Node):
            made.meta["val"] = node.meta["val"].shape[dim]
        return made

    def arithmetic(self, fn: Callable[..., Any], *numbers: Any) -> Any:
        """``fn(*numbers)`` as an argument: an int, or a node that gives it."""
        return insertion.arithmetic(self.call, fn, *numbers)

    def number(self, value: Any) -> Any:
        """``value`` as an argument: an int, or a node that gives it. Numbers that it is derived from are computed once each."""
        made: dict[Any, fx.Node] = {}
        for own in derivation(value):
            made[own] = self.call(own.fn, *(made.get(arg, arg) for arg in own.args))
            made[own].meta["val"] = own.value
        return made.get(value, value)

    def steady(self, size: Any) -> Any:
        """The size ``size`` as an argument: an int, or a node; None where it moves from step to step."""
        return self.number(self._kinds.number(size, self.node))

    def twin(self, value: Any, device: torch.device) -> Any:
        """The 0-d tensor on ``device`` that holds the number ``value``; a plain int stays an int."""
        return self.twins.of(value, device)

    def tensor(self, value: Any, device: torch.device) -> fx.Node:
        """The 0-d tensor on ``device`` that holds the number ``value``, of a plain int too."""
        return self.twins.tensor(value, device, self.node)
