"""Reductions of index tensors over dims, and running sums.

    (at[None] == at[:, None]).all(0)        all of each column
    lens.max(0), lens.cumsum(0)             values and places; [e0, e0 + e1]

The rules take and return numpy arrays of entries, as in `arithmetic`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .arithmetic import NotCovered, apply, elementwise, fold, is_truth, quantify
from .functions import how_many, place_of_max, place_of_min, total

Rule = Callable[..., Any]


def over_dims(rule: Rule) -> Rule:
    """The rule of a reduction over the dims that are given, or over all; ``rule`` makes one entry of an array."""

    def reduce(a: np.ndarray, dim: Any = None, keepdim: bool = False, *, axis: Any = None) -> np.ndarray:
        given = axis if dim is None else dim
        if given is None or given == ():
            return rule(a)  # type: ignore[no-any-return]
        dims = {d % max(a.ndim, 1) for d in ((given,) if type(given) is int else given)}
        out = np.empty([1 if d in dims else size for d, size in enumerate(a.shape)], dtype=object)
        for place in np.ndindex(out.shape):
            out[place] = rule(a[tuple(slice(None) if d in dims else i for d, i in enumerate(place))])[()]
        return out if keepdim else out.squeeze(tuple(dims))

    return reduce


def extreme(fn: Callable[..., Any], place: Callable[..., Any]) -> Rule:
    """The rule of ``max`` or ``min``: of all entries, of two tensors, or values and places along a dim."""
    whole, pair, values, places = fold(fn), elementwise(fn), over_dims(fold(fn)), over_dims(fold(place))

    def rule(a: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], np.ndarray):
            return pair(a, *args, **kwargs)
        return [values(a, *args, **kwargs), places(a, *args, **kwargs)] if args or kwargs else whole(a)

    return rule


largest, smallest = extreme(max, place_of_max), extreme(min, place_of_min)


def summed(a: np.ndarray) -> np.ndarray:
    """``a.sum()``: of truth values, how many hold."""
    return (quantify(how_many) if all(map(is_truth, a.flat)) else fold(total))(a)  # type: ignore[no-any-return]


def cumsum(a: np.ndarray, dim: int) -> np.ndarray:
    """``a.cumsum(dim)`` of numbers."""
    if any(map(is_truth, a.flat)):
        raise NotCovered
    out = a.copy()
    rows = np.moveaxis(out, dim, -1)
    for place in np.ndindex(rows.shape[:-1]):
        rows[place] = list(itertools.accumulate(rows[place], lambda x, y: apply(operator.add, x, y)))
    return out
