"""The kind of each symbol of a graph. It is decided here, and all that follows reads it.

    position    moves with every step, by our arithmetic or the caller's       a 0-d tensor in the core
    growth      a size that moves with every step                              left symbolic
    variant     the next step does not move it: rows, heads, encoder length    one core for each value

What decides, the first that applies:

1. A position is what is computed from an index tensor's elements, or from an int that moves (`positions`).
2. What was taken for a variant, and moved in call after call, has been corrected (`execute.watched_variants`).
3. Slices at positions show that a size belongs to a step, not to a moment (`shown`).
4. The calls so far (`calls`). A size that they say nothing about is a variant in a graph with positions, a step, and left
   symbolic in any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass.graph.numbers import Derived, fixed, symbols, to_expr

from .calls import Kind
from .positions import Positions
from .shown import shown_steady

aten = torch.ops.aten


class Symbol(NamedTuple):
    """A symbol of a graph, its kind, and what it is of, as the user writes it."""

    symbol: str
    kind: Kind
    of: str


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the calls before say of a graph's symbols (`calls.CallHistory.kind`), and those that have been corrected."""

    kinds: Mapping[Any, Kind | None] = dataclasses.field(default_factory=dict)
    corrected: Set[Any] = frozenset()


class Kinds:
    """The kind of each symbol that the inputs of ``graph`` have. A symbol from elsewhere, known on the device only, has none,
    and is left symbolic as a growth is. Those of `layouts` are no symbols of a core."""

    def __init__(self, graph: fx.Graph, positions: Positions, seen: Seen | None = None) -> None:
        self._graph = graph
        seen = seen or Seen()
        unseen: Kind = "variant" if positions.symbols and seen.kinds else "growth"
        found: dict[Any, Kind] = {symbol: kind or unseen for symbol, kind in seen.kinds.items()}
        found |= dict.fromkeys(shown_steady(graph, positions) - seen.corrected, "variant")
        found |= dict.fromkeys(positions.symbols, "position")
        self.layouts = layouts(graph)
        self._kinds = found

    def of(self, value: Any) -> Kind | None:
        """The kind of a number, or of a tensor's sizes, strides and offset; what moves decides. None where no symbol is."""
        kinds = {self._kinds.get(symbol, "growth") for symbol in symbols(value)}
        return next((kind for kind in ("position", "growth", "variant") if kind in kinds), None)

    @property
    def bound(self) -> set[Any]:
        """The symbols that are numbers when a core is compiled: variants, and layouts."""
        return {symbol for symbol, kind in self._kinds.items() if kind == "variant"} | self.layouts

    def are_steady(self, sizes: Any) -> bool:
        """Whether each of ``sizes`` is the same from step to step."""
        return all(isinstance(size, int) or self.of(size) in (None, "variant") for size in sizes)

    def number(self, size: Any, place: fx.Node) -> int | Derived | None:
        """``size`` as an int, or as the size of an input that variants make, to be read off before ``place``. None where it is
        neither.
        """
        number = fixed(size)
        if number is not None or not self.are_steady([size]):
            return number
        for node, dim, own in _sizes(self._graph):
            if to_expr(own) == to_expr(size):
                return Derived(aten.sym_size.int, (node, dim), own, place)
        return None


def layouts(graph: fx.Graph) -> set[Any]:
    """The symbols that only say where in memory an input of ``graph`` starts, and how far apart its elements lie.

    Nothing compiled depends on the start; for other strides a part is compiled anew.
    """
    found: set[Any] = set()
    others: set[Any] = set()
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta["val"]
        if isinstance(value, torch.Tensor):
            found |= {s for number in (*value.stride(), value.storage_offset()) for s in symbols(number)}
            others |= {s for size in value.shape for s in symbols(size)}
        elif node.users:
            others |= symbols(value)
    return found - others


def _sizes(graph: fx.Graph) -> Iterator[tuple[fx.Node, int, Any]]:
    """The symbolic sizes of the inputs of ``graph``."""
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            yield from ((node, dim, size) for dim, size in enumerate(value.shape) if isinstance(size, torch.SymInt))
