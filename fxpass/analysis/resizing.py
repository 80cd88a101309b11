"""The extents of axes that an op makes longer or shorter.

    pad(k, [0, 0, 1, 1])        {2: e}  ->  valid below e + 2 of S + 2
    repeat(k, [1, 1, 2, 1])     {2: e}  ->  valid below e * 2 of S * 2

Length and full size are derived numbers (`numbers.Derived`). The graph computes them only if the rewrite needs them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from torch import fx

from .extents import Extent, Flow

Resize = tuple[Callable[[Any, Any], Any], Any]
"""A function of two numbers, and the second of them."""


def resized(node: fx.Node, flow: Flow, extent: Extent, *steps: Resize) -> Extent:
    """The extent that ``node`` makes of ``extent``: ``steps`` are applied to its length and to its full size."""
    length, full = extent.length, extent.full
    for fn, other in steps:
        if (fn, other) not in _IDENTITIES:
            length = flow.derive(node, fn, length, other)
            full = flow.derive(node, fn, full, other)
    return new_axis(flow, length, full, extent)


def new_axis(flow: Flow, length: Any, full: Any, *parts: Extent) -> Extent:
    """An extent of ``length`` on an axis of the size ``full``, made of the axes of ``parts``."""
    extent = Extent(length, full, frozenset().union(*(e.reads for e in parts)))
    flow.lengths.append(extent)
    return extent


_IDENTITIES = {(operator.add, 0), (operator.sub, 0), (operator.mul, 1), (operator.floordiv, 1)}
