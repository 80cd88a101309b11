"""What one element of an index tensor holds: a number of its own, or arithmetic on the numbers that a graph is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import fx


@dataclasses.dataclass(frozen=True)
class Element:
    """Element ``index`` (row-major) of the graph input ``tensor``, as it was when the graph was entered."""

    tensor: fx.Node
    index: int


@dataclasses.dataclass(frozen=True)
class Number:
    """The SymInt that ``node`` of the graph stands for: a size, an int argument, arithmetic on them."""

    node: fx.Node


@dataclasses.dataclass(frozen=True)
class Arith:
    """``fn(*args)`` over entries: integer arithmetic or a comparison."""

    fn: Callable[..., Any]
    args: tuple[Entry, ...]


Entry = int | bool | Element | Number | Arith


def numbers(entry: Entry) -> Iterator[Number]:
    """The graph's own numbers that ``entry`` is computed from."""
    if isinstance(entry, Number):
        yield entry
    elif isinstance(entry, Arith):
        for arg in entry.args:
            yield from numbers(arg)


def tensors(entry: Entry) -> Iterator[fx.Node]:
    """The index tensors that ``entry`` is computed from."""
    if isinstance(entry, Element):
        yield entry.tensor
    elif isinstance(entry, Arith):
        for arg in entry.args:
            yield from tensors(arg)
