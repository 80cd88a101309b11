"""What one element of an index tensor holds: a number of its own, or arithmetic on the numbers that a graph is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from torch import fx


@dataclasses.dataclass(frozen=True)
class Element:
    """Element ``index`` (row-major) of the graph input ``tensor``, as it was when the graph was entered."""

    tensor: fx.Node
    index: int


@dataclasses.dataclass(frozen=True)
class GraphInt:
    """The SymInt that ``node`` of the graph stands for: a size, an int argument, arithmetic on them."""

    node: fx.Node


@dataclasses.dataclass(frozen=True, eq=False)
class Arith:
    """``fn(*args)`` over entries: integer arithmetic, a comparison, or what all elements make.

    Many may be computed from one, which stays one object.
    """

    fn: Callable[..., Any]
    args: tuple[Entry, ...]


Entry = int | bool | Element | GraphInt | Arith


def in_order(
    entries: Iterable[Entry | None], whole: Callable[[Arith], bool] = lambda entry: False
) -> list[Element | GraphInt | Arith]:
    """All that ``entries`` are computed from and what is no constant among themselves, each once, operands first.

    What an entry is computed from that is taken as a ``whole`` is left out.
    """
    found: dict[Element | GraphInt | Arith, None] = {}
    waiting = [entry for entry in entries if isinstance(entry, (Element, GraphInt, Arith))][::-1]
    while waiting:
        entry = waiting.pop()
        operands = entry.args if isinstance(entry, Arith) and entry not in found and not whole(entry) else ()
        missing = [a for a in operands if isinstance(a, (Element, GraphInt, Arith)) and a not in found]
        if missing:
            waiting += [entry, *reversed(missing)]
        else:
            found[entry] = None
    return list(found)


def graph_ints(entries: Iterable[Entry | None]) -> list[GraphInt]:
    """The graph's own numbers that ``entries`` are computed from."""
    return [entry for entry in in_order(entries) if isinstance(entry, GraphInt)]


def tensors(entries: Iterable[Entry | None]) -> list[fx.Node]:
    """The index tensors that ``entries`` are computed from."""
    return list(dict.fromkeys(entry.tensor for entry in in_order(entries) if isinstance(entry, Element)))
