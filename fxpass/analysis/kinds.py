"""Which kind of symbol each symbol of a graph is, from what has been seen to move from one call of its frame to the next.

    position    an element of an index tensor; an int that moves with every step                  a 0-d tensor in the core
    growth      a size that moves with every step                                                 left symbolic
    variant     a size or an int that the next step does not move: rows, heads, encoder length    one core for each value

A variant that does move at every step is found out by counting (`execute.corrected`), and is then a growth.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
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
class Calls:
    """What has been seen of the numbers of a frame, by the names of their sources, from call to call."""

    last: dict[str, int] = dataclasses.field(default_factory=dict)
    graph: Any = None
    """Which of the frame's graphs ran last."""
    _moves: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    _stays: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def see(self, numbers: Mapping[str, int]) -> None:
        """A call has come with these ``numbers``."""
        for name, value in numbers.items():
            last = self.last.get(name)
            if last is not None:
                (self._stays if last == value else self._moves)[name] += 1
            self.last[name] = value

    def is_steady(self, name: str, value: int) -> bool:
        """Whether the number called ``name``, now ``value``, is what it was at the last call, and has moved seldom."""
        return self.last.get(name) == value and STEADY * self._moves[name] <= self._stays[name] + STEADY // 2


def kind_of(calls: Calls, name: str, value: int, is_size: bool) -> Kind:
    """The kind of the size, or of the caller's int, called ``name``, which is ``value`` now."""
    return "variant" if calls.is_steady(name, value) else "growth" if is_size else "position"
