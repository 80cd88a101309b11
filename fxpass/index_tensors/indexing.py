"""Ops that move entries of index tensors without computing: indexing, views, casts, fills, joins, other orders, and `arange`.

    idx[1:]                  a view in PyTorch, and a numpy view here: what is written to one is seen through the other
    idx.reshape(2, 2)        a view, or a copy where numpy makes one
    idx[0] = 3               written to the array of ``idx``

The rules take and return numpy arrays of entries, as in `arithmetic`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .arithmetic import NotCovered, apply, as_array, elementwise, is_truth, truths
from .contents import GraphInt
from .functions import choose


def getitem(a: Any, index: Any) -> np.ndarray:
    """``a[index]`` for a basic index, or one of several views."""
    if isinstance(a, list) and type(index) is int:
        return a[index]
    if not isinstance(a, np.ndarray):
        raise NotCovered
    return a[_basic(index)]


def setitem(a: Any, index: Any, value: Any) -> np.ndarray:
    """``a[index] = value`` for a basic index."""
    if not isinstance(a, np.ndarray):
        raise NotCovered
    a[_basic(index)] = as_array(value)
    return a


def select(a: np.ndarray, dim: int, index: Any) -> np.ndarray:
    """``a.select(dim, index)``."""
    index = _constant(index) if isinstance(index, np.ndarray) else index
    return a[(slice(None),) * (dim % a.ndim) + _basic(index)]


def unbind(a: np.ndarray, dim: int = 0) -> list[np.ndarray]:
    """``a.unbind(dim)``: views."""
    return [select(a, dim, i) for i in range(a.shape[dim])]


def split(a: np.ndarray, size: Any, dim: int = 0) -> list[np.ndarray]:
    """``a.split(size, dim)``, for one size or several: views."""
    if type(size) is int:
        ends = range(size, a.shape[dim], size)
    elif all(type(s) is int for s in size):
        ends = list(itertools.accumulate(size))[:-1]  # type: ignore[assignment]
    else:
        raise NotCovered
    return np.split(a, ends, dim)


def chunk(a: np.ndarray, chunks: int, dim: int = 0) -> list[np.ndarray]:
    """``a.chunk(chunks, dim)``: views."""
    return split(a, -(-a.shape[dim] // chunks), dim)


def view(a: np.ndarray, *shape: Any) -> np.ndarray:
    """``a.view(*shape)``; `NotCovered` where numpy needs a copy for it."""
    out = reshape(a, *shape)
    if not np.shares_memory(out, a):
        raise NotCovered
    return out


def reshape(a: np.ndarray, *shape: Any) -> np.ndarray:
    """``a.reshape(*shape)`` for constant sizes."""
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if not all(type(s) is int for s in shape):
        raise NotCovered
    return a.reshape(shape)


def squeeze(a: np.ndarray, dim: int | None = None) -> np.ndarray:
    """``a.squeeze()``, or ``a.squeeze(dim)``, which does nothing for a dim of another size than 1."""
    return a.squeeze() if dim is None else a.squeeze(dim) if a.shape[dim] == 1 else a


def unsqueeze(a: np.ndarray, dim: int) -> np.ndarray:
    """``a.unsqueeze(dim)``."""
    return np.expand_dims(a, dim if dim >= 0 else dim + a.ndim + 1)


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


def cast(a: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """``a.to(...)``: numbers are brought into the dtype later (`arithmetic.hold`); truth values become 0 or 1, and numbers
    become truth values where ``torch.bool`` is asked for."""
    wanted = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)]
    if any(dtype not in (torch.int32, torch.int64, torch.bool) for dtype in wanted):
        raise NotCovered
    if torch.bool in wanted:
        return truths(a)
    out = a.copy()
    for place, entry in np.ndenumerate(a):
        if wanted and entry is not None and is_truth(entry):
            out[place] = apply(choose, entry, 1, 0)
    return out


def as_number(a: np.ndarray) -> np.ndarray:
    """``a.int()`` or ``a.long()``."""
    return cast(a, torch.int64)


def fill(a: np.ndarray, value: Any = 0) -> np.ndarray:
    """``a.fill_(value)``, ``a.copy_(value)``, ``a.zero_()``."""
    a[...] = as_array(value)
    return a


def joined(join: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """The rule of ``cat`` or ``stack``, done by numpy's ``join``."""

    def rule(arrays: Any, dim: int = 0) -> np.ndarray:
        if not isinstance(arrays, (list, tuple)) or not all(isinstance(a, np.ndarray) for a in arrays):
            raise NotCovered
        return join(arrays, axis=dim)

    return rule


def arange(shape: tuple[int, ...], *bounds: Any, **named: Any) -> np.ndarray:
    """``arange(s, s + 4)``: a fixed number of elements, from a start that may move."""
    start = 0 if len(bounds) == 1 else bounds[0]
    if len(bounds) > 2 or {"start", "end", "step"} & named.keys() or not all(_is_number(b) for b in bounds):
        raise NotCovered
    return elementwise(operator.add)(np.arange(*shape).astype(object), start)


def tensor(shape: tuple[int, ...], data: Any, **named: Any) -> np.ndarray:
    """``torch.tensor(data)``: numbers in nested lists, which may move."""
    flat, waiting = [], [data]
    while waiting:
        part = waiting.pop()
        waiting += reversed(part) if isinstance(part, (list, tuple)) else ()
        flat += [] if isinstance(part, (list, tuple)) else [part.item() if isinstance(part, np.ndarray) else part]
    out = np.empty(len(flat), dtype=object)
    out[:] = flat
    return out.reshape(shape)


def full(shape: tuple[int, ...], size: Any, value: Any, **named: Any) -> np.ndarray:
    """``torch.full(size, value)``."""
    return fill(np.empty(shape, dtype=object), value)


def like(value: int) -> Callable[..., np.ndarray]:
    """The rule of ``zeros_like`` or ``ones_like``."""
    return lambda a, **named: fill(np.empty(a.shape, dtype=object), value)


def _basic(index: Any) -> tuple[Any, ...]:
    """``index`` as a basic index that makes numpy return a view even for a single element.

    A tensor stands for a number only where it has no dims: one with a single element makes a copy that keeps the dim.
    """
    index = index if isinstance(index, tuple) else (index,)
    if any(isinstance(i, np.ndarray) and i.ndim for i in index):
        raise NotCovered
    fixed = tuple(_constant(i) if isinstance(i, np.ndarray) else i for i in index)
    if not all(i is None or i is Ellipsis or type(i) is int or _is_constant_slice(i) for i in fixed):
        raise NotCovered
    return fixed if Ellipsis in fixed else (*fixed, Ellipsis)


def _is_constant_slice(index: Any) -> bool:
    return isinstance(index, slice) and all(b is None or type(b) is int for b in (index.start, index.stop, index.step))


def _constant(array: np.ndarray) -> int:
    if array.size != 1 or type(value := array.reshape(-1)[0]) is not int:
        raise NotCovered
    return value


def _is_number(value: Any) -> bool:
    return type(value) is int or isinstance(value, GraphInt)
