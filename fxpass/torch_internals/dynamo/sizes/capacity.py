"""The size of a buffer of ours, as a symbol in the environment of a graph that Dynamo has captured.

    with Capacity(env) as capacity:
        C = capacity.beyond([s, s + 1])      s < C and s + 1 < C hold on every call: the buffer is made so large
        ...                                  a graph is rewritten; what is asked about C is noted as guards
    capacity.conditions()                    [C < 1024]: what must hold of another capacity, too

Dynamo knows nothing of this number, so none of its guards may mention it. Guards that do are taken out when the block ends.
Such a guard holds for any capacity, or is a condition on the capacity alone, or relates it to other numbers. In the last case
the rewrite is given up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch

from fxpass import reasons
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, hint

from .own_numbers import always_holds, count, from_the_least_on, number_of_ours, taken_out


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Conditions on a capacity, called ``symbol`` in ``expressions``, under which what was compiled is right."""

    symbol: Any
    expressions: Sequence[Any] = ()

    def hold(self, value: int) -> bool:
        """Whether all conditions hold of the capacity ``value``."""
        return all(e.xreplace({self.symbol: sympy.Integer(value)}) == sympy.true for e in self.expressions)


class Capacity:
    """One number in the environment ``env``. ``room`` chooses it: a function of the length that it must exceed."""

    def __init__(self, env: Any, room: Callable[[int], int]) -> None:
        self._env, self._room = env, room
        self._symbol: Any = None
        self._lengths: Sequence[torch.SymInt] = ()
        self._asked: list[Any] = []

    def beyond(self, lengths: Sequence[torch.SymInt]) -> torch.SymInt:
        """The capacity, as a number that is known to be larger than each of ``lengths`` from here on. Where a rewrite starts
        again, it gets a new one."""
        self._symbol, number = number_of_ours(self._env, "capacity", self._room(max(map(hint, lengths))))
        self._lengths = lengths
        for length in lengths:
            guarded(length < number)
        return number

    @property
    def is_used(self) -> bool:
        """Whether there has been a length to exceed."""
        return self._symbol is not None

    def __enter__(self) -> Capacity:
        return self

    def __exit__(self, *error: Any) -> None:
        """Take all guards on the capacity out of the environment."""
        self._asked = taken_out(self._env, {self._symbol})

    def conditions(self) -> Conditions:
        """The conditions on the capacity that the block has asked about.

        Raises:
            Refusal: one of them relates the capacity to other numbers.
        """
        mixed = [e for e in self._asked if e.free_symbols != {self._symbol} and not self._is_certain(e)]
        if mixed:
            raise Refusal(reasons.ROOM, what=", ".join(map(str, mixed)))
        return Conditions(self._symbol, [e for e in self._asked if e.free_symbols == {self._symbol}])

    def _is_certain(self, condition: Any) -> bool:
        others = (condition.free_symbols | self._of_lengths()) - {self._symbol}
        counted = from_the_least_on(self._env, others)
        return any(_holds(condition, self._symbol, length.node.expr, counted) for length in self._lengths)

    def _of_lengths(self) -> set[Any]:
        return {s for length in self._lengths for s in length.node.expr.free_symbols}


def _holds(condition: Any, symbol: Any, length: Any, counted: Mapping[Any, Any]) -> bool:
    """Whether the relation ``condition`` holds whenever ``symbol`` is larger than ``length``."""
    return always_holds(condition, {symbol: length + 1 + count("room")}, counted)
