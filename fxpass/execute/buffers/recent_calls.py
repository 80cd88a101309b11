"""The latest calls of a graph whose inputs grow. A call that goes on from none of them was given something else.

    past of 7 rows; the graph joins 1        a later call with a past of 8 rows goes on from it
    series of 64, then of 96 values          a later call with one of 128 goes on from the second
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Callable, Sequence

from fxpass.graph.arguments import values_at

RECENT = 16
"""A call may go on from one of this many calls before it."""
STRANGERS = 4
"""This many calls in a row may go on from none."""


class RecentCalls:
    """The sizes of the latest calls along the ``number`` dims that grow. The graph itself adds rows to those at ``joined``."""

    def __init__(self, number: int, joined: Sequence[int]) -> None:
        self.joined = joined
        self._of_joined = values_at(joined)
        self._latest: collections.deque[tuple[int, ...]] = collections.deque(maxlen=RECENT)
        self._strangers = 0
        self._step = (0,) * number

    def go_on_to(
        self, sizes: tuple[int, ...], lengths: tuple[int, ...], is_part: Callable[[], bool] = lambda: False
    ) -> int:
        """Add a call, which makes ``lengths`` of ``sizes``. Returns how many calls in a row have gone on from no earlier one. A
        call that was given a part of what an earlier one had made (``is_part``) goes on from that."""
        if self._contain(sizes) or is_part():
            self._strangers = 0
        elif not self._are_exceeded(sizes):
            self._strangers += 1
        self._latest.appendleft(self._of_joined(lengths) if self.joined else sizes)
        return self._strangers

    def _contain(self, sizes: tuple[int, ...]) -> bool:
        """Whether one of the calls has made what is joined as long as ``sizes`` say. Of a series: whether one of the calls had
        one that was shorter by as many rows as the series has grown by the last time."""
        if self.joined:
            return self._of_joined(sizes) in self._latest
        return min(self._step) > 0 and tuple(map(operator.sub, sizes, self._step)) in self._latest

    def _are_exceeded(self, sizes: tuple[int, ...]) -> bool:
        """Whether this is a series that is longer than in the last call, by any number of rows."""
        if self.joined or not self._latest:
            return False
        self._step = tuple(map(operator.sub, sizes, self._latest[0]))
        return min(self._step) > 0
