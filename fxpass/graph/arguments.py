"""The arguments of a call, by their places."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any


def values_at(
    places: Sequence[int], sizes: Sequence[tuple[int, int]] = ()
) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function that takes the elements at ``places`` out of a sequence, and ``sizes``, each of an element along a dim."""
    if sizes:
        values = values_at(places)
        return lambda args: (*values(args), *(args[place].shape[dim] for place, dim in sizes))
    if len(places) > 1:
        return operator.itemgetter(*places)
    return (lambda args: (args[places[0]],)) if places else lambda args: ()
