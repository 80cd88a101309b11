"""Numbers that were taken for variants: one that turns out to move is left symbolic after a few cores.

    rows = 3 | 3, 3, 3 | 4, 4, 4        a core for 3, and one for 4
    step = 7 | 8 | 9 | 10 | 11          a core each; then one graph, cut again, in which ``step`` is a number
    rows = 3 | 4 | 3 | 4 | 3 | 4        two cores: going back to a value costs nothing
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fxpass.graph.arguments import values_at

MAX_NEW = 4
"""So many calls in a row may each bring a new value of a variant."""


class WatchedVariants:
    """Calls ``run``, which compiles a core for each combination of the arguments at ``places``, and counts their values.

    An argument that brings a new value in more than `MAX_NEW` calls in a row is a variant no more, and neither is the one with
    the most values where there are more than ``most`` combinations. ``again(places)`` then makes the function that takes the
    place of ``run``, given the places of such arguments. If it fails, ``otherwise(error)`` makes that function. ``told()`` is
    called with each such change, after it.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        places: Sequence[int],
        again: Callable[[list[int]], Callable[..., Any]],
        most: int,
        otherwise: Callable[[Exception], Callable[..., Any]],
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._run, self._again, self._most, self._otherwise, self._told = run, again, most, otherwise, told
        self._watch(places)

    def _made_again(self, moved: list[int]) -> Callable[..., Any]:
        try:
            return self._again(moved)
        except Exception as error:
            return self._otherwise(error)

    def _watch(self, places: Sequence[int]) -> None:
        self._places, self._taken = list(places), values_at(places)
        self._last: tuple[Any, ...] | None = None
        self._met: set[tuple[Any, ...]] = set()
        self._values: list[set[Any]] = [set() for _ in places]
        self._new, self._is_new = [0] * len(places), False

    def __call__(self, *args: Any) -> Any:
        now = self._taken(args)
        if now != self._last or self._is_new:
            self._count(now)
            self._last = now
        return self._run(*args)

    def _count(self, now: tuple[Any, ...]) -> None:
        known = self._values
        self._new = [n + 1 if v not in met else 0 for n, v, met in zip(self._new, now, known, strict=True)]
        self._is_new = any(self._new)
        for value, met in zip(now, known, strict=True):
            met.add(value)
        self._met.add(now)
        moved = [place for place, n in zip(self._places, self._new, strict=True) if n > MAX_NEW]
        if not moved and len(self._met) > self._most:
            moved = [max(zip(known, self._places, strict=True), key=lambda pair: len(pair[0]))[1]]
        if moved:
            self._run = self._made_again(moved)
            self._watch([place for place in self._places if place not in moved])
            self._told()
