"""Positions in index expressions, brought to a form in which each of them stays a symbol.

    cache[:, start_tensor:end_tensor]       cache[:, s0:s1]
    pages[s0, s1] = k                       setitem(select(select(pages, 0, s0), 0, s1), ..., k)

A tensor becomes the number that it holds. PyTorch takes a SymInt in the tuple of an index for a constant, which would cost a
graph for every value, so it is selected instead.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.graph.values import example_value
from fxpass.torch_internals.dynamo.names import wrap_fx_proxy

NumberReader = Callable[[fx.Proxy], Any]
"""Gives the number that a tensor proxy holds, as a graph argument; None where it is not known."""


def with_number_bounds(index: Any, number_in: NumberReader) -> Any:
    """The ``index`` of a getitem or setitem, with numbers in the place of tensors that stand for a slice bound or an element.

    As in eager, only a 0-d tensor stands for an element: one with dims is an index tensor of its own.
    """
    if isinstance(index, tuple):
        return tuple(_place(i, number_in) for i in index)
    place = _place(index, number_in)
    return (place,) if place is not index and _is_symint(place) else place


def _place(index: Any, number_in: NumberReader) -> Any:
    if rank(index) == 0 and example_value(index).dtype in (torch.int32, torch.int64):
        return number_or_same(index, number_in)
    if isinstance(index, slice):
        return slice(*(number_or_same(b, number_in) for b in (index.start, index.stop, index.step)))
    return index


def rank(value: Any) -> int | None:
    """How many dims the tensor has that ``value`` is the proxy of; None if it is no such proxy."""
    tensor = example_value(value)
    return tensor.dim() if isinstance(tensor, torch.Tensor) else None


def number_or_same(value: Any, number_in: NumberReader) -> Any:
    """The number that ``value`` holds if it is a tensor that the table knows; otherwise ``value`` itself."""
    if rank(value) is None:
        return value
    number = number_in(value)
    return value if number is None else number


def selected(tx: Any, tensor: Any, index: Any) -> tuple[Any, Any]:
    """``tensor`` with the elements selected that SymInts of the tuple ``index`` stand for, and the rest of the index.

    The rest is an ellipsis where the index holds nothing else. An index out of range is left to Dynamo.
    """
    count = rank(tensor)
    if not isinstance(index, tuple) or not any(map(_is_symint, index)) or count is None:
        return tensor, index
    places = dims(index, count)
    if places is None:
        return tensor, index
    rows = tensor
    for dim, i in reversed([(d, i) for d, i in zip(places, index, strict=True) if _is_symint(i)]):
        try:
            rows = wrap_fx_proxy(tx, tx.output.create_proxy("call_method", "select", (rows, dim, i), {})).as_proxy()
        except IndexError:  # the model's own: Dynamo meets it again, where it handles what a model raises
            return tensor, index
    rest = tuple(i for i in index if not _is_symint(i))
    return rows, rest or (Ellipsis,)


def slices(tensor: Any, index: Any) -> dict[int, slice]:
    """The slices of ``tensor[index]`` with a SymInt as a bound, by the dim that each of them slices."""
    count = rank(tensor)
    index = index if isinstance(index, tuple) else (index,)
    if count is None or not any(map(_moves, index)):
        return {}
    places = dims(index, count)
    return {} if places is None else {d: i for d, i in zip(places, index, strict=True) if _moves(i)}


def _moves(index: Any) -> bool:
    return isinstance(index, slice) and (_is_symint(index.start) or _is_symint(index.stop))


def dims(index: tuple[Any, ...], count: int) -> list[int] | None:
    """The dim, of ``count``, that each item of ``index`` stands for; None where an item is of a kind that does not tell."""
    used = 0
    for i in index:
        if isinstance(tensor := example_value(i), torch.Tensor):
            used += _dims_of(tensor)
        elif isinstance(i, (int, slice)) and not isinstance(i, bool) or _is_symint(i):
            used += 1
        elif i is not None and i is not Ellipsis:
            return None
    found, dim = [], 0
    for i in index:
        found.append(dim)
        if i is Ellipsis:
            dim += count - used
        elif i is not None:
            dim += _dims_of(tensor) if isinstance(tensor := example_value(i), torch.Tensor) else 1
    return found


def _dims_of(index: torch.Tensor) -> int:
    """How many dims an ``index`` stands for: a mask for as many as it has, places for one."""
    return index.dim() if index.dtype is torch.bool else 1


def _is_symint(value: Any) -> bool:
    return isinstance(example_value(value), torch.SymInt)


def is_indexing(target: Any) -> bool:
    """Whether ``target`` is ``x[index]`` or ``x[index] = value``."""
    return target in (operator.getitem, operator.setitem)
