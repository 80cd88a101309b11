"""Which kind of symbol each symbol of a graph is, from what has been seen to move from one call of its frame to the next.

    position    an element of an index tensor; an int that moves with every step                  a 0-d tensor in the core
    growth      a size that moves with every step                                                 left symbolic
    variant     a size or an int that the next step does not move: rows, heads, encoder length    one core for each value

A variant that does move at every step is found out by counting (`execute.watched_variants`), and is then a growth.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal["position", "growth", "variant"]
STEADY = 4
"""A number that moves at most once in as many calls is steady."""


class Symbol(NamedTuple):
    """A symbol of a graph, its kind, and what it is of, as the user writes it."""

    symbol: str
    kind: Kind
    of: str


@dataclasses.dataclass
class CallHistory:
    """What has been seen of the numbers of a frame, by the names of their sources, from call to call."""

    last: dict[str, int] = dataclasses.field(default_factory=dict)
    _graph: Any = None
    _fixed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    _again: int = 0
    _moves: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    _stays: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def see(self, graph: Any, fixed: Mapping[str, int], moving: Iterable[tuple[str, int]]) -> None:
        """``graph``, one of the frame's, is called. The numbers in ``fixed`` are the same for each of its calls."""
        if graph is self._graph:
            self._again += 1
        else:
            self._settle()
            self._graph, self._fixed = graph, fixed
            self._note(fixed.items())
        self._note(moving)

    def is_steady(self, name: str, value: int) -> bool:
        """Whether the number called ``name``, now ``value``, is what it was at the last call, and has moved seldom."""
        self._settle()
        return self.last.get(name) == value and STEADY * self._moves[name] <= self._stays[name] + 1 + STEADY // 2

    def _note(self, numbers: Iterable[tuple[str, int]]) -> None:
        for name, value in numbers:
            last = self.last.get(name)
            if last is not None:
                (self._stays if last == value else self._moves)[name] += 1
            self.last[name] = value

    def _settle(self) -> None:
        """Count the calls of one graph, one after the other, for the numbers that are fixed in it."""
        for name in self._fixed if self._again else ():
            self._stays[name] += self._again
        self._again = 0


def kind_of(calls: CallHistory, name: str, value: int, is_size: bool) -> Kind:
    """The kind of the size, or of the caller's int, called ``name``, which is ``value`` now."""
    return "variant" if calls.is_steady(name, value) else "growth" if is_size else "position"
