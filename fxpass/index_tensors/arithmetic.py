"""What ops make of the contents of small integer tensors, as rules over numpy arrays of entries.

Numpy does the indexing and the broadcasting, `Arith` the arithmetic. A rule for a view returns a view of its operand,
one for an op in place writes to it; what a rule does not cover, it refuses.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .contents import Arith, Element, Entry, GraphInt

COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)


class NotCovered(Exception):
    """A rule met something that it does not cover."""


def int32(number: Any) -> Any:
    """``number`` as a tensor of 32 bits holds it."""
    return (number + 2**31) % 2**32 - 2**31


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


FOLDS = (max, min, total, product, any_of, all_of)
"""What makes one number, or one truth, of all elements."""
_TRUTHS = (*COMPARISONS, any_of, all_of)


def hold(array: np.ndarray, dtype: torch.dtype) -> bool:
    """Let ``array`` hold what a tensor of ``dtype`` does, in place; False where an entry is no number of that kind."""
    for place, entry in np.ndenumerate(array):
        if entry is None:
            continue
        if not isinstance(entry, Entry) or _is_bool(entry) != (dtype is torch.bool):
            return False
        if dtype is torch.int32 and not _is_int32(entry):
            array[place] = _arith(int32, entry)
    return True


def _is_bool(entry: Entry) -> bool:
    return isinstance(entry, bool) or isinstance(entry, Arith) and entry.fn in _TRUTHS


def _is_int32(entry: Entry) -> bool:
    if isinstance(entry, Element):
        return entry.tensor.meta["example_value"].dtype is torch.int32
    return isinstance(entry, Arith) and entry.fn is int32 or isinstance(entry, int) and int32(entry) == entry


def _arith(fn: Callable[..., Any], *args: Entry | None) -> Entry | None:
    if any(arg is None for arg in args):
        return None
    if all(isinstance(arg, (int, bool)) for arg in args):
        return fn(*args)
    return Arith(fn, args)  # type: ignore[arg-type]


def _elementwise(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def rule(a: Any, b: Any) -> np.ndarray:
        if isinstance(a, float) or isinstance(b, float):
            raise NotCovered
        out = np.frompyfunc(lambda x, y: _arith(fn, x, y), 2, 1)(_obj(a), _obj(b))
        return _obj(out)

    return rule


def _fold(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def rule(a: np.ndarray) -> np.ndarray:
        return _obj(_folded(fn, list(a.reshape(-1))))

    return rule


def _folded(fn: Callable[..., Any], entries: list[Entry | None]) -> Entry | None:
    """``fn`` of all ``entries``, with what is added to each of them added once: a position then stays a start and a length.

        max(e0 + 1, e1 + 1)        max(e0, e1) + 1
    """
    if not entries or fn not in (any_of, all_of) and any(isinstance(e, bool) or _is_truth(e) for e in entries):
        raise NotCovered
    if len(entries) == 1 and fn not in (any_of, all_of):
        return entries[0]
    if fn in (max, min, total) and isinstance(first := entries[0], Arith) and len(first.args) == 2:
        outer, (_, step) = first.fn, first.args
        if all(isinstance(e, Arith) and e.fn is outer and e.args[1:] == (step,) for e in entries):
            if outer is operator.add and (fn is not total or type(step) is int):
                inner = _folded(fn, [e.args[0] for e in entries])  # type: ignore[union-attr]
                return _arith(operator.add, inner, step * len(entries) if fn is total else step)  # type: ignore
    return _arith(fn, *entries)


def _is_truth(entry: Entry | None) -> bool:
    return isinstance(entry, Arith) and entry.fn in _TRUTHS


def _truths(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """``any`` and ``all``, also of numbers, which hold unless they are zero."""

    def rule(a: np.ndarray) -> np.ndarray:
        flat = [e if e is None or _is_bool(e) else _arith(operator.ne, e, 0) for e in a.reshape(-1)]
        return _obj(_folded(fn, flat))

    return rule


def _logical(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Of truths alone: on numbers, ``&`` works on their bits."""

    def rule(a: Any, b: Any) -> np.ndarray:
        if not all(e is None or _is_bool(e) for x in (a, b) for e in _obj(x).flat):
            raise NotCovered
        return _elementwise(fn)(a, b)

    return rule


def _not(a: np.ndarray) -> np.ndarray:
    if not all(e is None or _is_bool(e) for e in a.flat):
        raise NotCovered
    return _elementwise(operator.eq)(a, False)


def _inplace(rule: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def write(a: np.ndarray, b: Any) -> np.ndarray:
        a[...] = rule(a, b)
        return a

    return write


def _obj(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    out = np.empty((), dtype=object)
    out[()] = value
    return out


def _index(index: Any) -> tuple[Any, ...]:
    """A basic index that makes numpy return a view even for a single element."""
    index = index if isinstance(index, tuple) else (index,)
    fixed = tuple(_constant(i) if isinstance(i, np.ndarray) else i for i in index)
    if not all(i is None or i is Ellipsis or type(i) is int or _is_plain_slice(i) for i in fixed):
        raise NotCovered
    return fixed if Ellipsis in fixed else (*fixed, Ellipsis)


def _is_plain_slice(index: Any) -> bool:
    return isinstance(index, slice) and all(b is None or type(b) is int for b in (index.start, index.stop, index.step))


def _constant(array: np.ndarray) -> int:
    if array.size != 1 or type(value := array.reshape(-1)[0]) is not int:
        raise NotCovered
    return value


def _getitem(a: Any, index: Any) -> np.ndarray:
    if not isinstance(a, np.ndarray):
        raise NotCovered
    return a[_index(index)]


def _setitem(a: Any, index: Any, value: Any) -> np.ndarray:
    if not isinstance(a, np.ndarray):
        raise NotCovered
    a[_index(index)] = _obj(value)
    return a


def _select(a: np.ndarray, dim: int, index: Any) -> np.ndarray:
    index = _constant(index) if isinstance(index, np.ndarray) else index
    return a[(slice(None),) * (dim % a.ndim) + _index(index)]


def _view(a: np.ndarray, *shape: Any) -> np.ndarray:
    out = _reshape(a, *shape)
    if not np.shares_memory(out, a):
        raise NotCovered
    return out


def _reshape(a: np.ndarray, *shape: Any) -> np.ndarray:
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if not all(type(s) is int for s in shape):
        raise NotCovered
    return a.reshape(shape)


def _cast(a: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    wanted = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)]
    if any(dtype not in (torch.int32, torch.int64) for dtype in wanted):
        raise NotCovered
    return a.copy()


def _fill(a: np.ndarray, value: Any = 0) -> np.ndarray:
    a[...] = _obj(value)
    return a


def _squeeze(a: np.ndarray, dim: int | None = None) -> np.ndarray:
    return a.squeeze() if dim is None else a.squeeze(dim) if a.shape[dim] == 1 else a


def _joined(join: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def rule(arrays: Any, dim: int = 0) -> np.ndarray:
        if not isinstance(arrays, (list, tuple)) or not all(isinstance(a, np.ndarray) for a in arrays):
            raise NotCovered
        return join(arrays, axis=dim)

    return rule


def _divided(a: Any, b: Any, *, rounding_mode: str | None = None) -> np.ndarray:
    if rounding_mode != "floor":
        raise NotCovered
    return RULES["floordiv"](a, b)


def _clamp(a: np.ndarray, min: Any = None, max: Any = None) -> np.ndarray:
    a = a if min is None else RULES["maximum"](a, min)
    return a.copy() if max is None else RULES["minimum"](a, max)


RULES: dict[str, Callable[..., np.ndarray]] = {
    "getitem": _getitem,
    "setitem": _setitem,
    "select": _select,
    "view": _view,
    "reshape": _reshape,
    "flatten": lambda a: a.reshape(-1),
    "squeeze": _squeeze,
    "unsqueeze": lambda a, dim: np.expand_dims(a, dim if dim >= 0 else dim + a.ndim + 1),
    "detach": lambda a: a,
    "_get_data_attr": lambda a: a,
    "contiguous": lambda a: a,
    "cpu": lambda a: a,
    "cat": _joined(np.concatenate),
    "stack": _joined(np.stack),
    "neg": lambda a: RULES["sub"](0, a),
    "div": _divided,
    "clamp": _clamp,
    "clone": lambda a, **_: a.copy(),
    "to": _cast,
    "int": _cast,
    "long": _cast,
    "copy_": _fill,
    "fill_": _fill,
    "zero_": lambda a: _fill(a, 0),
    "max": _fold(max),
    "min": _fold(min),
    "amax": _fold(max),
    "amin": _fold(min),
    "sum": _fold(total),
    "prod": _fold(product),
    "any": _truths(any_of),
    "all": _truths(all_of),
    "logical_and": _logical(all_of),
    "logical_or": _logical(any_of),
    "__and__": _logical(all_of),
    "__or__": _logical(any_of),
    "bitwise_and": _logical(all_of),
    "bitwise_or": _logical(any_of),
    "logical_not": _not,
    "invert": _not,
    "bitwise_not": _not,
}
"""The op's name: ``rule(*args, **kwargs)``, its result; an array among the operands that it writes to is written to."""
for _fn in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod):
    RULES[_fn.__name__] = _elementwise(_fn)
    RULES[_fn.__name__ + "_"] = _inplace(RULES[_fn.__name__])
for _fn in COMPARISONS:
    RULES[_fn.__name__] = RULES[f"__{_fn.__name__}__"] = _elementwise(_fn)
for _names, _fn in (
    ("maximum", max),
    ("minimum", min),
    ("floor_divide", operator.floordiv),
    ("remainder", operator.mod),
):
    RULES[_names] = _elementwise(_fn)


def _arange(shape: tuple[int, ...], *bounds: Any, **named: Any) -> np.ndarray:
    """``arange(s, s + 4)``: a fixed number of elements, from a start that may move."""
    start = 0 if len(bounds) == 1 else bounds[0]
    if len(bounds) > 2 or {"start", "end", "step"} & named.keys() or not all(_is_number(b) for b in bounds):
        raise NotCovered
    return _elementwise(operator.add)(np.arange(*shape).astype(object), start)


def _is_number(value: Any) -> bool:
    return type(value) is int or isinstance(value, GraphInt)


FACTORIES: dict[str, Callable[..., np.ndarray]] = {"arange": _arange}
"""The op's name: ``factory(shape, *args, **kwargs)``, a new small tensor made from numbers."""
