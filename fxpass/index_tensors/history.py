"""Which elements of an index tensor have always been equal, and which have changed, from one compilation to the next.

    (0, 0, 0)  (4, 4, 4)  (9, 9, 9)      layers that decode in step: one number
    (4, 4, 4)  (9, 9, 7)                 one that is left behind: two numbers
    (6, 6, 6)  (7, 3, 7)                 rows that come and go: each has a number of its own from here on

Elements that have always been equal share one symbol in a graph. An element that leaves zero on its own was empty before, and
one that stays behind once may belong to a layer that is skipped. The others still share a symbol. In a batch whose rows come
and go, an element decreases alone, parts from its group a second time, or begins to move after others have moved. Then every
element gets a symbol of its own at once, since to find that out pair by pair would cost a graph for each pair.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class ElementHistory:
    """What has been seen of the elements of one index tensor.

    groups: the group of each element. Elements of one group have never been seen to differ.
    independent: whether each element is a number of its own, which may move at any time.
    """

    groups: tuple[int, ...] = ()
    independent: bool = False
    _values: tuple[int, ...] = ()
    _moved: frozenset[int] = frozenset()
    _parted: bool = False

    def see(self, values: tuple[int, ...]) -> None:
        """Take note that the elements are ``values`` now."""
        if len(values) != len(self._values):
            self.groups, self._values, self._moved = (0,) * len(values), values, frozenset()
        pairs = list(zip(self.groups, values, strict=True))
        numbers = {pair: i for i, pair in enumerate(dict.fromkeys(pairs))}
        groups = tuple(numbers[pair] for pair in pairs)
        moved = {i for i, (last, now) in enumerate(zip(self._values, values, strict=True)) if last != now}
        known = {i for i, last in enumerate(self._values) if last != 0}
        parted = len({(self.groups[i], groups[i]) for i in known}) > len({self.groups[i] for i in known})
        late = bool(self._moved) and bool((moved & known) - self._moved)
        back = any(now < last for last, now in zip(self._values, values, strict=True))
        self.independent |= late or parted and (back or self._parted)
        self._parted |= parted
        self.groups = tuple(range(len(values))) if self.independent else groups
        self._values, self._moved = values, self._moved | moved
