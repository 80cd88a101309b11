"""A number that was taken for a variant and moves with every call: after a few cores, it is no variant any more.

    rows = 3 | 3, 3, 3 | 4, 4, 4        a core for 3, and one for 4
    step = 7 | 8 | 9 | 10 | 11          a core each; then one graph, cut again, in which ``step`` is a number
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MAX_MOVES = 4
"""In as many calls one after the other a variant may move."""


class WatchedVariants:
    """``run``, until one of the arguments at ``places`` has moved in `MAX_MOVES` calls one after the other; from then on
    ``again(places)``, called with those that have."""

    def __init__(
        self,
        run: Callable[..., Any],
        places: Sequence[int],
        again: Callable[[list[int]], Callable[..., Any]],
    ) -> None:
        self._run, self._again = run, again
        self._moves = dict.fromkeys(places, 0)
        self._last: tuple[Any, ...] = ()

    def __call__(self, *args: Any) -> Any:
        now = tuple(args[place] for place in self._moves)
        if self._last:
            self._count(now)
        self._last = tuple(args[place] for place in self._moves)
        return self._run(*args)

    def _count(self, now: tuple[Any, ...]) -> None:
        for place, before, value in zip(self._moves, self._last, now, strict=True):
            self._moves[place] = 0 if before == value else self._moves[place] + 1
        restless = [place for place, moves in self._moves.items() if moves >= MAX_MOVES]
        if restless:
            self._run = self._again(restless)
            self._moves = {place: 0 for place in self._moves if place not in restless}
