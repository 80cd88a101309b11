"""The kind of each symbol of a graph is decided here; all later stages read it.

    position    moves with every step, by our arithmetic or the caller's       a 0-d tensor in the core
    growth      a size that moves with every step                              left symbolic
    variant     the next step does not move it: rows, heads, encoder length    one core for each value

The first of these that applies decides:

1. A number that is computed from an element of an index tensor, or from an int that moves, is a position (`positions`), and so
   is a size that grows and says at which place rows are written. An int that has stayed in several steps, and moves for the
   first time, is no position: it came with another prompt. Neither is one that has stayed before, and only says how large
   tensors are (`pure_sizes`).
2. A number that was taken for a variant, and then moved in call after call, is a growth (`execute.plans.watched_variants`).
3. A size that the graph shows to be the same for all steps is a variant (`steady_sizes`).
4. Otherwise the calls so far decide (`calls`). A size that they say nothing about is a variant in a graph with positions, which
   is a step, and left symbolic in any other graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass.graph.numbers import Derived, fixed, input_sizes, symbols, to_expr

from .calls import Kind
from .positions import Positions
from .steady_sizes import settled, shown_steady

aten = torch.ops.aten


class Symbol(NamedTuple):
    """A symbol of a graph, its kind, and the number that it stands for, as the user writes it."""

    symbol: str
    kind: Kind
    of: str


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the calls so far say of the symbols of a graph (`calls.CallHistory.kind`), and the symbols that were corrected."""

    kinds: Mapping[Any, Kind | None] = dataclasses.field(default_factory=dict)
    corrected: Set[Any] = frozenset()


class Kinds:
    """The kinds of the symbols in the inputs of ``graph``.

    A symbol from elsewhere is known on the device only. It has no kind, and is left symbolic as a growth is. The symbols of
    `layouts` do not occur in a core.
    """

    def __init__(self, graph: fx.Graph, positions: Positions, seen: Seen | None = None) -> None:
        self._graph = graph
        seen = seen or Seen()
        unseen: Kind = "variant" if positions.symbols and seen.kinds else "growth"
        found: dict[Any, Kind] = {symbol: kind or unseen for symbol, kind in seen.kinds.items()}
        moving = {symbol for symbol, kind in found.items() if kind == "growth"}
        steady = shown_steady(graph, positions) | settled(graph, moving)
        found |= dict.fromkeys(steady - seen.corrected, "variant")
        found |= dict.fromkeys(positions.symbols, "position")
        self.layouts = layouts(graph)
        self._kinds = found

    def of(self, value: Any) -> Kind | None:
        """The kind of a number, or of a tensor: of several symbols, one that moves decides. None where there is no symbol."""
        kinds = {self._kinds.get(symbol, "growth") for symbol in symbols(value)}
        return next((kind for kind in ("position", "growth", "variant") if kind in kinds), None)

    def of_symbol(self, symbol: Any) -> Kind:
        """The kind of one symbol: a growth if only the device knows it."""
        return self._kinds.get(symbol, "growth")

    @property
    def symbols(self) -> Set[Any]:
        """The symbols that have a kind."""
        return self._kinds.keys()

    @property
    def bound(self) -> set[Any]:
        """The symbols that are replaced by numbers when a core is compiled: variants and layouts."""
        return {symbol for symbol, kind in self._kinds.items() if kind == "variant"} | self.layouts

    def are_steady(self, sizes: Any) -> bool:
        """Whether each of ``sizes`` is the same from step to step."""
        return all(isinstance(size, int) or self.of(size) in (None, "variant") for size in sizes)

    def number(self, size: Any, place: fx.Node) -> int | Derived | None:
        """``size`` as an int, or as a number to be read off an input before ``place`` if it is steady; otherwise None."""
        number = fixed(size)
        if number is not None or not self.are_steady([size]):
            return number
        for node, dim, own in input_sizes(self._graph):
            if to_expr(own) == to_expr(size):
                return Derived(aten.sym_size.int, (node, dim), own, place)
        return None


def layouts(graph: fx.Graph) -> set[Any]:
    """The symbols that occur only in storage offsets and strides of inputs of ``graph``.

    Compiled code does not depend on storage offsets. For other strides a part is compiled once more.
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
