"""Axes that a rule makes: how many of their elements are valid, and how large they are in full.

    pad(k, [0, 0, 1, 1])        {2: e}  ->  valid below e + 2 of S + 2
    repeat(k, [1, 1, 2, 1])     {2: e}  ->  valid below e * 2 of S * 2

The full size is that of a tensor which nothing reads: it goes as soon as the graph is rewritten, unless the size is a symbol.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.graph.numbers import number

from .extents import Extent, Flow

aten = torch.ops.aten

Step = tuple[Callable[[Any, Any], Any], Any]
"""A function of two numbers, and the second of them."""


def resized(node: fx.Node, flow: Flow, extent: Extent, *steps: Step) -> Extent:
    """The extent of an axis that ``node`` makes of the axis of ``extent``, by ``steps`` from its length and its full size."""
    length: Any = extent.length
    size = full_size(node, flow, extent)
    for fn, other in steps:
        if (fn, other) not in _IDENTITIES:
            length = flow.derive(node, fn, length, other)
            size = static(node, flow, fn, size, other)
    return axis(node, flow, length, size, extent)


def axis(node: fx.Node, flow: Flow, length: Any, size: Any, *parts: Extent) -> Extent:
    """An extent of ``length`` on an axis of full size ``size``, made of those of ``parts``."""
    sites = frozenset().union(*(e.sites for e in parts))
    like = parts[0].full
    with flow.graph.inserting_before(node):
        made = flow.graph.call_function(aten.new_empty.default, (like, [size]))
    made.meta["val"] = like.meta["val"].new_empty([number(size)])
    extent = Extent(length, made, 0, sites)
    flow.lengths.append(extent)
    return extent


def full_size(node: fx.Node, flow: Flow, extent: Extent) -> Any:
    """The full size of the axis of ``extent``: an int, or a node before ``node``."""
    if isinstance(extent.full_size, int):
        return extent.full_size
    with flow.graph.inserting_before(node):
        made = flow.graph.call_function(aten.sym_size.int, (extent.full, extent.full_dim))
    made.meta["val"] = extent.full_size
    return made


def static(node: fx.Node, flow: Flow, fn: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """``fn(a, b)`` of two full sizes: an int, or a node before ``node``."""
    if not isinstance(a, fx.Node) and not isinstance(b, fx.Node):
        return fn(a, b)
    with flow.graph.inserting_before(node):
        made = flow.graph.call_function(fn, (a, b))
    made.meta["val"] = fn(number(a), number(b))
    return made


_IDENTITIES = {(operator.add, 0), (operator.sub, 0), (operator.mul, 1), (operator.floordiv, 1)}
