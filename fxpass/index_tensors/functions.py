"""The functions that compute entries of index tensors (`contents.Arith`), on Python's ints as tensors compute them.

    lens.sum()            total(e0, e1)                      wraps around at 64 bits
    (pad > 0).any()       any_of(gt(e0, 0), gt(e1, 0))
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


def int32(number: Any) -> Any:
    """``number`` as a tensor of 32 bits holds it: it wraps around."""
    return (number + 2**31) % 2**32 - 2**31


def int64(number: Any) -> Any:
    """``number`` as a tensor of 64 bits holds it: it wraps around."""
    return (number + 2**63) % 2**64 - 2**63


def total(*numbers: Any) -> Any:
    """The sum of ``numbers``."""
    return sum(numbers)


def product(*numbers: Any) -> Any:
    """The product of ``numbers``."""
    return math.prod(numbers)


def any_of(*truths: Any) -> bool:
    """Whether one of ``truths`` holds."""
    return any(truths)


def all_of(*truths: Any) -> bool:
    """Whether all of ``truths`` hold."""
    return all(truths)


def choose(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where ``condition`` holds, else ``b``."""
    return a if condition else b


def place_of_max(*numbers: Any) -> int:
    """Where the first of the largest of ``numbers`` stands."""
    return numbers.index(max(numbers))


def place_of_min(*numbers: Any) -> int:
    """Where the first of the smallest of ``numbers`` stands."""
    return numbers.index(min(numbers))


def how_many(*truths: Any) -> int:
    """How many of ``truths`` hold."""
    return sum(map(bool, truths))


PAIRWISE = (max, min, total, product)
"""The folds that combine numbers two at a time. Of a single number they give that number."""
FOLDS = (*PAIRWISE, place_of_max, place_of_min, how_many, any_of, all_of)
"""The functions that make one number, or one truth value, of all elements."""
QUANTIFIERS = (any_of, all_of)
TRUTHS = (*COMPARISONS, *QUANTIFIERS)


def on_host(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` on Python's ints, which are unbounded, as tensors of 64 bits compute it."""
    return _WRAPPING.get(fn, fn)


def _wrapped(fn: Callable[..., int], *numbers: int) -> int:
    return int64(fn(*numbers))


_WRAPPING = {f: functools.partial(_wrapped, f) for f in (operator.add, operator.sub, operator.mul, total, product)}
