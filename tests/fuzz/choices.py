"""Named choices from a seed. Each is drawn by itself, so that to change one leaves all others as they are.

A program is a seed and, where shrinking has been at work, the choices that differ from what the seed says. The first option of
every choice is the simplest one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """The choices of one program; ``made`` tells which have been asked for so far, and the places of the options taken."""

    def __init__(self, seed: int, given: Mapping[str, int] | None = None) -> None:
        self.seed = seed
        self.given = dict(given or {})
        self.made: dict[str, int] = {}

    def pick(self, name: str, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of ``options``; the same each time for one seed and ``name``."""
        place = self.given.get(name)
        if place is None:
            place = random.Random(f"{self.seed} {name}").choices(range(len(options)), weights)[0]
        place = place if place < len(options) else 0
        self.made[name] = place
        return options[place]

    def weighed(self, name: str, options: Mapping[T, float]) -> T:
        """One of the keys of ``options``, as often as its number says."""
        return self.pick(name, list(options), list(options.values()))

    def chance(self, name: str, p: float) -> bool:
        """True with probability ``p``; False is the simpler one."""
        return self.pick(name, (False, True), (1 - p, p))
