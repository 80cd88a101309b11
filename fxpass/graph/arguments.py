"""The arguments of a call, by their places."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any


def values_at(
    places: Sequence[int], sizes: Sequence[tuple[int, int]] = ()
) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function that takes the elements at ``places`` out of a sequence, and ``sizes``, each of an element along a dim."""
    if sizes:  # as one expression, since it is asked in each call
        taken = [*(f"args[{place}]" for place in places), *(f"args[{place}].size({dim})" for place, dim in sizes)]
        return eval(f"lambda args: ({', '.join(taken)},)")  # type: ignore[no-any-return]
    if len(places) > 1:
        return operator.itemgetter(*places)
    return (lambda args: (args[places[0]],)) if places else lambda args: ()
