"""Ops that go along dims of index tensors, put entries in another order, or choose between them.

    (at[None] == at[:, None]).all(0)        all of each column
    lens.max(0), lens.cumsum(0)             values and places; [e0, e0 + e1]
    where(pad > 0, at, 0)                   choose(pad0 > 0, at0, 0)

The rules take and return numpy arrays of entries, as in `arithmetic`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from .arithmetic import NotCovered, apply, as_array, elementwise, fold, is_truth, quantify
from .functions import choose, how_many, place_of_max, place_of_min, total

Rule = Callable[..., Any]


def along(rule: Rule) -> Rule:
    """``rule``, which makes one entry of an array, along the dims that are given; of all entries without any."""

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
    whole, pair, values, places = fold(fn), elementwise(fn), along(fold(fn)), along(fold(place))

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


def flip(a: np.ndarray, *dims: Any) -> np.ndarray:
    """``a.flip(*dims)``."""
    return np.flip(a, tuple(dims[0]) if isinstance(dims[0], (tuple, list)) else dims)


def permute(a: np.ndarray, *dims: Any) -> np.ndarray:
    """``a.permute(*dims)``: a view."""
    return a.transpose(dims[0] if len(dims) == 1 else dims)


def expand(a: np.ndarray, *sizes: Any) -> np.ndarray:
    """``a.expand(*sizes)``: a view, which nothing can be written through here."""
    wanted = tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    own = (1,) * (len(wanted) - a.ndim) + a.shape
    return np.broadcast_to(a, [size if new == -1 else new for size, new in zip(own, wanted, strict=True)])


def where(first: Any, second: Any, third: Any) -> np.ndarray:
    """``torch.where(condition, a, b)``, and ``a.where(condition, b)``. Of truth values alone, the two look alike."""
    is_function, is_method = _may_be_truths(first), _may_be_truths(second)
    condition, a, b = (first, second, third) if is_function else (second, first, third)
    if is_function == is_method or any(isinstance(value, float) for value in (a, b)):
        raise NotCovered
    return as_array(np.frompyfunc(_chosen, 3, 1)(as_array(condition), as_array(a), as_array(b)))


def masked_fill(a: np.ndarray, mask: Any, value: Any) -> np.ndarray:
    """``a.masked_fill(mask, value)``."""
    return where(mask, value, a)


def _may_be_truths(value: Any) -> bool:
    return all(e is None or is_truth(e) for e in as_array(value).flat)


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    return (a if condition else b) if isinstance(condition, bool) else apply(choose, condition, a, b)
