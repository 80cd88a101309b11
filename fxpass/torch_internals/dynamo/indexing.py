"""Index expressions with numbers and tensors that move, brought to a form that does not fix them.

    cache[:, start_tensor:end_tensor]       the tensors become the numbers that they hold
    pages[s0, s1] = k                       setitem(select(select(pages, 0, s0), 0, s1), ..., k)

PyTorch's indexing takes a SymInt for a constant when it stands in a tuple: every value would be one more graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.dynamo.names import wrap_fx_proxy

Number = Callable[[fx.Proxy], Any]
"""Gives the number in a tensor proxy, as a graph argument, or None."""


def bounds(index: Any, number_in: Number) -> Any:
    """``index`` of a getitem or setitem with tensor slice bounds replaced by the numbers they hold."""
    if isinstance(index, tuple):
        return tuple(bounds(i, number_in) for i in index)
    if isinstance(index, slice):
        return slice(*(plain(b, number_in) for b in (index.start, index.stop, index.step)))
    return index


def plain(value: Any, number_in: Number) -> Any:
    """``value``, or the number that it holds if it is a small tensor that the table knows."""
    if not isinstance(value, fx.Proxy) or not isinstance(value.node.meta.get("example_value"), torch.Tensor):
        return value
    number = number_in(value)
    return value if number is None else number


def selected(tx: Any, tensor: Any, index: Any) -> tuple[Any, Any]:
    """``tensor`` with the moving numbers of the tuple ``index`` selected, and the rest of the index.

    A `getitem` of nothing else is left with an ellipsis.
    """
    if not isinstance(index, tuple) or not any(_is_symint(i) for i in index) or not isinstance(tensor, fx.Proxy):
        return tensor, index
    value = tensor.node.meta.get("example_value")
    places = _dims(index, value.dim()) if isinstance(value, torch.Tensor) else None
    if places is None:
        return tensor, index
    for dim, i in reversed([(d, i) for d, i in zip(places, index, strict=False) if _is_symint(i)]):
        tensor = wrap_fx_proxy(tx, tx.output.create_proxy("call_method", "select", (tensor, dim, i), {})).as_proxy()
    rest = tuple(i for i in index if not _is_symint(i))
    return tensor, rest or (Ellipsis,)


def slices(tensor: Any, index: Any) -> dict[int, slice]:
    """The slices of ``tensor[index]`` with numbers of the graph as bounds, by the dims that they slice."""
    value = tensor.node.meta.get("example_value") if isinstance(tensor, fx.Proxy) else None
    index = index if isinstance(index, tuple) else (index,)
    if not isinstance(value, torch.Tensor) or not any(_moves(i) for i in index):
        return {}
    return {d: i for d, i in zip(_dims(index, value.dim()) or (), index, strict=False) if _moves(i)}


def _moves(index: Any) -> bool:
    return isinstance(index, slice) and (_is_symint(index.start) or _is_symint(index.stop))


def _dims(index: tuple[Any, ...], rank: int) -> list[int] | None:
    """For each item of ``index`` the dim that it stands for, or None where that is not plain to see."""
    used = 0
    for i in index:
        if isinstance(i, fx.Proxy) and isinstance(v := i.node.meta.get("example_value"), torch.Tensor):
            used += v.dim() if v.dtype is torch.bool else 1
        elif isinstance(i, (int, slice)) and not isinstance(i, bool) or _is_symint(i):
            used += 1
        elif i is not None and i is not Ellipsis:
            return None
    dims, dim = [], 0
    for i in index:
        dims.append(dim)
        if i is Ellipsis:
            dim += rank - used
        elif i is not None:
            is_bool = isinstance(i, fx.Proxy) and getattr(i.node.meta.get("example_value"), "dtype", None) is torch.bool
            dim += i.node.meta["example_value"].dim() if is_bool else 1
    return dims


def _is_symint(value: Any) -> bool:
    return isinstance(value, fx.Proxy) and isinstance(value.node.meta.get("example_value"), torch.SymInt)


def is_indexing(target: Any) -> bool:
    """Whether ``target`` is ``x[index]`` or ``x[index] = value``."""
    return target in (operator.getitem, operator.setitem)


def starts(target: Any, operands: tuple[Any, ...], number_in: Number) -> tuple[Any, ...]:
    """The operands of a `narrow` or an `arange`, with tensors replaced by the numbers they hold."""
    if target in ("narrow", torch.narrow) and len(operands) == 4:
        return (*operands[:2], *(plain(o, number_in) for o in operands[2:]))
    if target is torch.arange:
        return tuple(plain(o, number_in) for o in operands)
    return operands
