"""The numbers among a captured graph's inputs, and what the calls of its frame so far say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import fx

from fxpass.analysis.calls import CallHistory, Graph, Kind
from fxpass.analysis.kinds import Kinds, Seen, Symbol
from fxpass.graph.numbers import symbols
from fxpass.torch_internals.dynamo.names import TensorPropertySource

from . import dynamism
from .sources import AggregateSource, PositionSource


@dataclasses.dataclass(frozen=True)
class NumberInput:
    """The SymInt ``value`` at ``place`` among a graph's arguments: the name of its source, and its kind if the calls tell."""

    place: int
    name: str
    value: torch.SymInt
    kind: Kind | None

    @property
    def symbols(self) -> set[Any]:
        """The symbols that stand for it by now: a guard may have replaced one symbol by another."""
        return symbols(self.value)


class NumberInputs:
    """The numbers that the Dynamo graph ``gm`` is given."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.all: list[NumberInput] = []
        self._calls = CallHistory()
        self._graph = Graph([], {})
        code = dynamism.current_code()
        if code is None:
            return
        self._calls, constants = dynamism.calls_of(code)
        for place, node in enumerate(gm.graph.find_nodes(op="placeholder")):
            source, value = _source(node), node.meta.get("example_value")
            if source is None:
                continue
            if isinstance(value, torch.Tensor):
                for d, size in enumerate(value.shape):
                    constants[f"{source.name}.size()[{d}]"] = size if isinstance(size, int) else size.node.hint
            elif isinstance(value, torch.SymInt):
                self.all.append(NumberInput(place, source.name, value, self._kind(source, value)))
        moving = {s for number in self.all if number.kind == "position" for s in number.symbols}
        for i, number in enumerate(self.all):
            if number.kind == "variant" and number.symbols & moving:
                self.all[i] = dataclasses.replace(number, kind="position")
        names = [number.name for number in self.all]
        self._graph = Graph(names, {name: value for name, value in constants.items() if name not in names})

    def _kind(self, source: Any, value: torch.SymInt) -> Kind | None:
        if isinstance(source, (PositionSource, AggregateSource)):
            return "position"
        is_size = isinstance(source, TensorPropertySource)
        return self._calls.kind(source.name, value.node.hint, is_size) or (None if is_size else "position")

    def seen(self) -> Seen:
        """What the calls so far say of the symbols."""
        kinds: dict[Any, Kind | None] = {}
        for kind in (None, "variant", "growth", "position"):  # of a symbol that several numbers have, what moves decides
            kinds |= {s: kind for n in self.all if n.kind == kind for s in n.symbols}  # type: ignore[misc]
        return Seen(kinds, {s for n in self.all if n.name in self._calls.corrected for s in n.symbols})

    @property
    def steady_ints(self) -> set[str]:
        """The names of the caller's ints that do not move."""
        return {n.name for n in self.all if n.kind == "variant"}

    @property
    def sizes(self) -> set[Any]:
        """The symbols of sizes that may grow: all but those that keep still."""
        return {s for s, kind in self.seen().kinds.items() if kind in (None, "growth")}

    def table(self, kinds: Kinds, lengths: Set[Any] = frozenset()) -> list[Symbol]:
        """The rows of the report: each symbol, its kind, and the number that it is of. Those in ``lengths`` grow in buffers."""
        shown = [(n, n.symbols - kinds.layouts) for n in self.all]
        names = ((n, own, "growth" if own <= lengths else kinds.of(n.value) or "variant") for n, own in shown if own)
        return [Symbol(", ".join(sorted(map(str, own))), kind, n.name) for n, own, kind in names]

    def bound(self, kinds: Kinds) -> list[NumberInput]:
        """The numbers for each value of which a core of its own is compiled."""
        return [n for n in self.all if kinds.of(n.value) == "variant" and n.symbols - kinds.layouts]

    def correct(self, number: NumberInput) -> None:
        """Remember that ``number`` moves, although it was taken for a variant."""
        self._calls.corrected.add(number.name)

    def watching(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls ``compiled``, and takes note of the numbers of each call."""
        if not self.all and not self._graph.fixed:
            return compiled
        return self._calls.watched(compiled, self._graph, [number.place for number in self.all])


def _source(node: fx.Node) -> Any:
    argument = node.meta.get("grapharg")
    return None if argument is None else argument.source
