"""The sizes of windows (`rewriting.buffers.windows`), as symbols in the environment of a graph that Dynamo has captured.

    with WindowSizes(env, room) as sizes:
        W = sizes.window(s + 1, [S])         s + 1 <= W <= S hold on every call: the window is made so
        ...                                  a graph is rewritten; what is asked about W is noted as guards
    sizes.asked                              a condition that was asked about and does not hold of every such W, or None

As with a `Capacity`, Dynamo knows nothing of these numbers, and guards on them are taken out when the block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxpass.graph.numbers import guarded, hint, to_expr

from .own_numbers import always_holds, count, from_the_least_on, is_of_layout, number_of_ours, taken_out


class WindowSizes:
    """Numbers in the environment ``env``. ``room`` chooses each: a function of the length that it must have room for."""

    def __init__(self, env: Any, room: Callable[[int], int]) -> None:
        self._env, self._room = env, room
        self._limits: dict[Any, tuple[Any, Sequence[Any]]] = {}
        self._known: set[Any] = set()
        self._asked: list[Any] = []

    def window(self, length: torch.SymInt, sizes: Sequence[Any]) -> torch.SymInt:
        """The size of a window that has room for ``length``, on axes of ``sizes``.

        It is taken to be smaller than these where it can be, since few windows are a whole axis.
        """
        least = hint(length)
        value = max(least, min(self._room(least), *(hint(size) - 1 for size in sizes)))
        symbol, number = number_of_ours(self._env, f"window{len(self._limits)}", value)
        before = len(self._env.guards)
        for bound in (length <= number, *(number <= size for size in sizes)):
            guarded(bound)
        self._known |= {g.expr for g in self._env.guards[before:]}
        self._limits[symbol] = to_expr(length), list(map(to_expr, sizes))
        return number

    def __enter__(self) -> WindowSizes:
        return self

    def __exit__(self, *error: Any) -> None:
        """Take all guards on the windows out of the environment."""
        self._asked = [e for e in taken_out(self._env, self._limits.keys()) if e not in self._known]

    @property
    def asked(self) -> Any:
        """The first condition that the block has asked about and that is not known to hold of all windows with room that are no
        larger than their axes; None if there is none. Conditions on layout do not count."""
        return next((condition for condition in self._asked if not self._is_certain(condition)), None)

    def _is_certain(self, condition: Any) -> bool:
        rooms: list[dict[Any, Any]] = []
        for window in condition.free_symbols & self._limits.keys():
            length, sizes = self._limits[window]
            if any(is_of_layout(condition, window, size) for size in sizes):
                return True
            rooms += [{window: length + count("room")}]
            rooms += [{size: window + count("room")} for size in sizes if getattr(size, "is_Symbol", False)]
        others = {s for room in rooms for made in room.values() for s in made.free_symbols} | condition.free_symbols
        counted = from_the_least_on(self._env, others)
        return any(always_holds(condition, room, counted) for room in rooms)
