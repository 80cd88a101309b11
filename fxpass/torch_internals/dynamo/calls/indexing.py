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
    if is_0d(index) and index.node.meta["example_value"].dtype in (torch.int32, torch.int64):
        return number_or_same(index, number_in)
    if isinstance(index, slice):
        return slice(*(number_or_same(b, number_in) for b in (index.start, index.stop, index.step)))
    return index


def is_0d(value: Any) -> bool:
    """Whether ``value`` is the proxy of a tensor without dims."""
    held = value.node.meta.get("example_value") if isinstance(value, fx.Proxy) else None
    return isinstance(held, torch.Tensor) and not held.dim()


def number_or_same(value: Any, number_in: NumberReader) -> Any:
    """The number that ``value`` holds if it is a tensor that the table knows; otherwise ``value`` itself."""
    if not isinstance(value, fx.Proxy) or not isinstance(value.node.meta.get("example_value"), torch.Tensor):
        return value
    number = number_in(value)
    return value if number is None else number


def selected(tx: Any, tensor: Any, index: Any) -> tuple[Any, Any]:
    """``tensor`` with the elements selected that SymInts of the tuple ``index`` stand for, and the rest of the index.

    The rest is an ellipsis where the index holds nothing else. An index out of range is left to Dynamo.
    """
    if not isinstance(index, tuple) or not any(_is_symint(i) for i in index) or not isinstance(tensor, fx.Proxy):
        return tensor, index
    value = tensor.node.meta.get("example_value")
    places = dims(index, value.dim()) if isinstance(value, torch.Tensor) else None
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
    value = tensor.node.meta.get("example_value") if isinstance(tensor, fx.Proxy) else None
    index = index if isinstance(index, tuple) else (index,)
    if not isinstance(value, torch.Tensor) or not any(_moves(i) for i in index):
        return {}
    places = dims(index, value.dim())
    return {} if places is None else {d: i for d, i in zip(places, index, strict=True) if _moves(i)}


def _moves(index: Any) -> bool:
    return isinstance(index, slice) and (_is_symint(index.start) or _is_symint(index.stop))


def dims(index: tuple[Any, ...], rank: int) -> list[int] | None:
    """The dim that each item of ``index`` stands for; None where an item is of a kind that does not tell."""
    used = 0
    for i in index:
        if isinstance(i, fx.Proxy) and isinstance(v := i.node.meta.get("example_value"), torch.Tensor):
            used += v.dim() if v.dtype is torch.bool else 1
        elif isinstance(i, (int, slice)) and not isinstance(i, bool) or _is_symint(i):
            used += 1
        elif i is not None and i is not Ellipsis:
            return None
    found, dim = [], 0
    for i in index:
        found.append(dim)
        if i is Ellipsis:
            dim += rank - used
        elif i is not None:
            is_bool = isinstance(i, fx.Proxy) and getattr(i.node.meta.get("example_value"), "dtype", None) is torch.bool
            dim += i.node.meta["example_value"].dim() if is_bool else 1
    return found


def _is_symint(value: Any) -> bool:
    return isinstance(value, fx.Proxy) and isinstance(value.node.meta.get("example_value"), torch.SymInt)


def is_indexing(target: Any) -> bool:
    """Whether ``target`` is ``x[index]`` or ``x[index] = value``."""
    return target in (operator.getitem, operator.setitem)
