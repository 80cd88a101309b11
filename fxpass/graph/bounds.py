"""The bounds of slices, narrows and selects. They may be left out, and may count from the end."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import Refusal

from .numbers import Derived, derived, guarded, number

aten = torch.ops.aten

TO_THE_END = 2**63 - 1
"""The end of a slice that reaches to the end."""

_DEFAULTS: list[Any] = [0, None, None, 1]


def slice_arguments(node: fx.Node) -> tuple[fx.Node, int, Any, Any, Any]:
    """(input, dim, start, end, step) of an ``aten.slice.Tensor``; a bound that is None becomes 0 or `TO_THE_END`."""
    x, dim, start, end, step = list(node.args) + _DEFAULTS[len(node.args) - 1 :]
    assert isinstance(x, fx.Node)
    return x, dim, 0 if start is None else start, TO_THE_END if end is None else end, step


def sliced_axis(node: fx.Node) -> tuple[fx.Node, int] | None:
    """The tensor and the dim that ``node`` slices, selects from or narrows; None if it does none of these, or has a step."""
    if node.target is aten.slice.Tensor:
        base, dim, *_, step = slice_arguments(node)
        if step != 1:
            return None
    elif node.target in (aten.select.int, aten.narrow.default):
        base, dim = node.args[:2]  # type: ignore[assignment]
    else:
        return None
    return base, dim % base.meta["val"].dim()


def bounds_of(node: fx.Node, size: Any) -> tuple[Any, Any]:
    """(start, end) of the part that ``node`` takes of an axis of ``size``, counted from the front. None means up to the end.

    Raises:
        Refusal: the sign of a bound is not known.
    """
    if node.target is aten.slice.Tensor:
        *_, start, end, _ = slice_arguments(node)
        last = None if isinstance(end, int) and end == TO_THE_END else from_the_front(end, size, node)
        return from_the_front(start, size, node), last
    start, *length = node.args[2:]
    start = from_the_front(start, size, node)
    return start, derived(operator.add, (start, *(length or [1])), node)


def from_the_front(bound: Any, size: Any, place: fx.Node) -> Any:
    """``bound`` counted from the front: a negative one counts from ``size``.

    Raises:
        Refusal: the sign of the bound is not known, or it lies before the first element.
    """
    if guarded(number(bound) >= 0):
        return bound
    if not guarded(number(bound) < 0):
        raise Refusal(reasons.UNKNOWN_SIGN)
    bound = derived(operator.add, (size, bound), place)
    if not guarded(number(bound) >= 0):
        raise Refusal(reasons.OUTSIDE, how="it starts before the first row")
    return bound


def size_of(x: fx.Node, dim: int, place: fx.Node) -> Any:
    """The size of ``x`` along ``dim``: an int, or a number to be read off before ``place``."""
    size = x.meta["val"].shape[dim]
    return size if isinstance(size, int) else Derived(aten.sym_size.int, (x, dim), size, place)
