"""Arithmetic on the entries of index tensors: elementwise, over all entries of a tensor, on truth values, and choices.

    add(idx, 1)           [e0, e1]        ->      [e0 + 1, e1 + 1]
    max(idx + 1)          [e0, e1]        ->      max(e0, e1) + 1
    any(idx > 0)          [e0, e1]        ->      any_of(e0 > 0, e1 > 0)
    where(p > 0, idx, 0)  [p0], [e0]      ->      choose(p0 > 0, e0, 0)

A rule takes and returns numpy arrays of entries (`contents.Entry`). Numpy broadcasts; entries that are no constants become an
`Arith`. A rule raises `NotCovered` where it cannot say what PyTorch would compute.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .contents import Arith, Element, Entry
from .functions import PAIRWISE, QUANTIFIERS, TRUTHS, choose, how_many, int32, on_host, total


class NotCovered(Exception):
    """A rule met something that it does not cover."""


def as_array(value: Any) -> np.ndarray:
    """``value`` if it is an array; otherwise a 0-d array that holds it."""
    if isinstance(value, np.ndarray):
        return value
    out = np.empty((), dtype=object)
    out[()] = value
    return out


def hold(array: np.ndarray, dtype: torch.dtype) -> bool:
    """Convert the entries of ``array``, in place, to what a tensor of ``dtype`` holds; False where one is of another kind."""
    for place, entry in np.ndenumerate(array):
        if entry is None:
            continue
        if not isinstance(entry, Entry) or is_truth(entry) != (dtype is torch.bool):
            return False
        if dtype is torch.int32 and not _fits_int32(entry):
            array[place] = apply(int32, entry)
    return True


def apply(fn: Callable[..., Any], *args: Entry | None) -> Entry | None:
    """``fn(*args)``: a constant where all ``args`` are constants, None where one of them is not known."""
    if any(arg is None for arg in args):
        return None
    if all(isinstance(arg, (int, bool)) for arg in args):
        return on_host(fn)(*args)
    return Arith(fn, args)  # type: ignore[arg-type]


def elementwise(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """The rule of a binary operator that applies ``fn`` to each pair of entries, broadcast."""

    def rule(a: Any, b: Any) -> np.ndarray:
        if isinstance(a, float) or isinstance(b, float):
            raise NotCovered
        return as_array(np.frompyfunc(lambda x, y: apply(fn, x, y), 2, 1)(as_array(a), as_array(b)))

    return rule


def in_place(rule: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """``rule``, with its result written to its first operand."""

    def write(a: np.ndarray, b: Any) -> np.ndarray:
        a[...] = rule(a, b)
        return a

    return write


def fold(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """The rule of a reduction that makes one entry of all: ``fn`` is one of `FOLDS`."""
    return lambda a: as_array(_folded(fn, list(a.reshape(-1))))


def _folded(fn: Callable[..., Any], entries: list[Entry | None]) -> Entry | None:
    """``fn`` of all ``entries``. What is added to each of them is added once, so that a position stays a start and a length:

    max(e0 + 1, e1 + 1)        becomes        max(e0, e1) + 1
    """
    takes_truths = fn in QUANTIFIERS or fn is how_many
    if not entries or not takes_truths and any(isinstance(e, bool) or _is_computed_truth(e) for e in entries):
        raise NotCovered
    if len(entries) == 1 and fn in PAIRWISE:
        return entries[0]
    step = _common_step(entries) if fn in (max, min, total) else None
    if step is None or fn is total and type(step) is not int:
        return apply(fn, *entries)
    inner = _folded(fn, [e.args[0] for e in entries])  # type: ignore[union-attr]
    return apply(operator.add, inner, step * len(entries) if fn is total else step)  # type: ignore[operator]


def _common_step(entries: list[Entry | None]) -> Entry | None:
    """The second term, where each of ``entries`` is a sum of two, and it is the same in all of them."""
    first = entries[0]
    if not isinstance(first, Arith) or first.fn is not operator.add or len(first.args) != 2:
        return None
    step = first.args[1]
    same = all(isinstance(e, Arith) and e.fn is operator.add and e.args[1:] == (step,) for e in entries)
    return step if same else None


def quantify(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """The rule of ``any``, ``all`` or ``count_nonzero``. Numbers count as true unless they are zero."""
    return lambda a: as_array(_folded(fn, list(truths(a).reshape(-1))))


def truths(a: np.ndarray) -> np.ndarray:
    """``a.bool()``: numbers are true unless they are zero."""
    out = np.empty(a.shape, dtype=object)
    for place, entry in np.ndenumerate(a):
        out[place] = entry if entry is None or is_truth(entry) else apply(operator.ne, entry, 0)
    return out


def logical(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """The rule of ``&`` or ``|`` on truth values. On numbers these work bit by bit, which is not covered."""

    def rule(a: Any, b: Any) -> np.ndarray:
        _refuse_numbers(a, b)
        return elementwise(fn)(a, b)

    return rule


def negate(a: np.ndarray) -> np.ndarray:
    """``~a`` of truth values."""
    _refuse_numbers(a)
    return elementwise(operator.eq)(a, False)


def divide(a: Any, b: Any, *, rounding_mode: str | None = None) -> np.ndarray:
    """``div`` that rounds down; any other gives floats or rounds otherwise."""
    if rounding_mode != "floor":
        raise NotCovered
    return elementwise(operator.floordiv)(a, b)


def clamp(a: np.ndarray, min: Any = None, max: Any = None) -> np.ndarray:
    """``a`` with its entries between ``min`` and ``max``."""
    a = a if min is None else _LARGER(a, min)
    return a.copy() if max is None else _SMALLER(a, max)


_LARGER, _SMALLER = elementwise(max), elementwise(min)


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


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    return (a if condition else b) if isinstance(condition, bool) else apply(choose, condition, a, b)


def _refuse_numbers(*values: Any) -> None:
    if not all(map(_may_be_truths, values)):
        raise NotCovered


def _may_be_truths(value: Any) -> bool:
    return all(e is None or is_truth(e) for e in as_array(value).flat)


def is_truth(entry: Entry) -> bool:
    """Whether ``entry`` is a truth value, and no number."""
    return isinstance(entry, bool) or _is_computed_truth(entry)


def _is_computed_truth(entry: Entry | None) -> bool:
    return isinstance(entry, Arith) and entry.fn in TRUTHS


def _fits_int32(entry: Entry) -> bool:
    """Whether ``entry`` is known to be a number of 32 bits."""
    if isinstance(entry, Element):
        return entry.tensor.meta["example_value"].dtype is torch.int32
    return isinstance(entry, Arith) and entry.fn is int32 or isinstance(entry, int) and int32(entry) == entry
