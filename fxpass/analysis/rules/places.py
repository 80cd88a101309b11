"""Gathering rows by their places, in any order.

    places = [e - 1, e - 2, ... 0, anything]      int64[S]
    flip(k, [2])        ->      index_select(k, 2, clamp(places, 0, S - 1))

The rows past the valid part may be any rows of the buffer, so places are clamped to it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import Extent

aten = torch.ops.aten

Count = Any
"""An int, or a 0-d tensor: the twin of a position."""


def take(b: Any, x: fx.Node, dim: int, size: Any, places: fx.Node) -> fx.Node:
    """The rows ``places`` of ``x`` along ``dim``, which has ``size`` rows. Places are clamped to these."""
    return b.call(aten.index_select.default, x, dim, b.call(aten.clamp.default, places, 0, b.arithmetic(operator.sub, size, 1)))


def rows(b: Any, x: fx.Node, dim: int, extent: Extent, count: Any, place: Callable[[fx.Node], fx.Node]) -> fx.Node:
    """``count`` rows of ``x`` along ``dim``, which has ``extent``. The i-th of them is row ``place(i)``."""
    steps = b.call(aten.arange.default, count, device=b.device)
    return take(b, x, dim, b.full(extent), place(steps))


def times(b: Any, steps: fx.Node, factor: Count) -> fx.Node:
    """``steps * factor``."""
    return steps if isinstance(factor, int) and factor == 1 else b.call(aten.mul.Tensor, steps, factor)


def plus(b: Any, steps: fx.Node, offset: Count) -> fx.Node:
    """``steps + offset``."""
    return steps if isinstance(offset, int) and offset == 0 else b.call(aten.add.Tensor, steps, offset)


def less(b: Any, steps: fx.Node, offset: Count) -> fx.Node:
    """``steps - offset``."""
    return plus(b, steps, -offset) if isinstance(offset, int) else b.call(aten.sub.Tensor, steps, offset)


def minus(b: Any, a: Any, steps: fx.Node) -> fx.Node:
    """``a - steps``."""
    return b.call(aten.rsub.Scalar, steps, a) if isinstance(a, int) else b.call(aten.sub.Tensor, a, steps)


def modulo(b: Any, steps: fx.Node, length: fx.Node) -> fx.Node:
    """``steps % length``. A length of 0 counts as 1: no row is valid then, so none of the places matters."""
    return b.call(aten.remainder.Tensor, steps, b.call(aten.clamp_min.default, length, 1))


def quotient(b: Any, steps: fx.Node, length: fx.Node) -> fx.Node:
    """``steps // length``. A length of 0 counts as 1, as in `modulo`."""
    return b.call(aten.floor_divide.default, steps, b.call(aten.clamp_min.default, length, 1))


def valid_length(b: Any, extent: Extent, x: fx.Node) -> fx.Node:
    """The number of valid rows, as a 0-d tensor on the device of ``x``."""
    return b.tensor(extent.length, x.meta["val"].device)
