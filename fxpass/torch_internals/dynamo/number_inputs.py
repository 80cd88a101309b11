"""The numbers that a captured graph is given, symbols and constants, as the calls of its frame are seen to bring them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.analysis.kinds import CallHistory, Kind, Symbol, kind_of
from fxpass.graph.numbers import symbols
from fxpass.torch_internals.dynamo.names import TensorPropertySource

from . import dynamism
from .sources import AggregateSource, PositionSource


@dataclasses.dataclass(frozen=True)
class NumberInput:
    """The SymInt at the place ``place`` of a graph's arguments: the name of its source, its kind and its symbols."""

    place: int
    name: str
    kind: Kind
    symbols: frozenset[Any]


class NumberInputs:
    """The numbers of one graph, of kinds that are decided here, from the calls before."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self._calls = CallHistory()
        self._fixed: dict[str, int] = {}
        self.all: list[NumberInput] = []
        self._names: list[str] = []
        self._places: list[int] = []
        code = dynamism.current_code()
        if code is None:
            return
        self._calls, self._fixed = dynamism.calls_of(code)
        for place, node in enumerate(gm.graph.find_nodes(op="placeholder")):
            source, value = _source(node), node.meta.get("example_value")
            if source is None:
                continue
            if isinstance(value, torch.Tensor):
                for d, size in enumerate(value.shape):
                    self._fixed[f"{source.name}.size()[{d}]"] = size if isinstance(size, int) else size.node.hint
            elif isinstance(value, torch.SymInt):
                self.all.append(NumberInput(place, source.name, self._kind(source, value), frozenset(symbols(value))))
        moving = {s for number in self.all if number.kind == "position" for s in number.symbols}
        for i, number in enumerate(self.all):
            if number.kind == "variant" and number.symbols & moving:
                self.all[i] = dataclasses.replace(number, kind="position")
        self._names = [number.name for number in self.all]
        self._fixed = {name: value for name, value in self._fixed.items() if name not in self._names}
        self._places = [number.place for number in self.all]

    def _kind(self, source: Any, value: torch.SymInt) -> Kind:
        if isinstance(source, (PositionSource, AggregateSource)):
            return "position"
        return kind_of(self._calls, source.name, value.node.hint, isinstance(source, TensorPropertySource))

    @property
    def variants(self) -> list[NumberInput]:
        """Those that are bound when a core is compiled."""
        return [number for number in self.all if number.kind == "variant"]

    def table(self) -> list[Symbol]:
        """What the report shows."""
        return [Symbol(", ".join(sorted(map(str, n.symbols))), n.kind, n.name) for n in self.all if n.symbols]

    def watching(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """``compiled``, with each of its calls seen."""
        if not self.all and not self._fixed:
            return compiled

        def run(*args: Any) -> Any:
            self._see(args)
            return compiled(*args)

        return run

    def _see(self, args: Sequence[Any]) -> None:
        given = [(name, args[place]) for name, place in zip(self._names, self._places, strict=True)]
        self._calls.see(self, self._fixed, given)


def _source(node: fx.Node) -> Any:
    argument = node.meta.get("grapharg")
    return None if argument is None else argument.source
