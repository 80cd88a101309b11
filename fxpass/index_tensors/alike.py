"""Which elements of an index tensor have been seen to be the same number, and to move, from one compilation to the next.

    (0, 0, 0)  (4, 4, 4)  (9, 9, 9)      layers that decode in step: one number
    (6, 6, 6)  (7, 3, 7)                 rows that part: each has a number of its own from here on

What parts from zero was empty, and the others go on together. What parts later, or begins to move after others have, is a
batch whose rows come and go: to learn it pair by pair would cost a graph for each.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Alike:
    """What has been seen of the elements of one index tensor.

    groups: for each element a group: elements of one have never been seen to differ.
    apart: whether each element is a number of its own, that may move at any time.
    """

    groups: tuple[int, ...] = ()
    apart: bool = False
    _values: tuple[int, ...] = ()
    _moved: frozenset[int] = frozenset()

    def see(self, values: tuple[int, ...]) -> None:
        """The elements are ``values`` now."""
        if len(values) != len(self._values):
            self.groups, self._values, self._moved = (0,) * len(values), values, frozenset()
        pairs = list(zip(self.groups, values))
        numbers = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        groups = tuple(numbers[pair] for pair in pairs)
        moved = {i for i, (last, now) in enumerate(zip(self._values, values)) if last != now}
        known = {i for i, last in enumerate(self._values) if last != 0}
        parted = len({(self.groups[i], groups[i]) for i in known}) > len({self.groups[i] for i in known})
        late = bool(self._moved) and bool((moved & known) - self._moved)
        self.apart |= values != self._values and (parted or late)
        self.groups = tuple(range(len(values))) if self.apart else groups
        self._values, self._moved = values, self._moved | moved
