"""What one element of an index tensor holds: an `Entry`, which is a constant, or arithmetic on what the graph is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import fx


@dataclasses.dataclass(frozen=True)
class Element:
    """Element ``index`` (row-major) of the graph input ``tensor``, as it was at the start of the call."""

    tensor: fx.Node
    index: int


@dataclasses.dataclass(frozen=True)
class GraphInt:
    """The SymInt that ``node`` of the graph computes: a size, an int argument, or arithmetic on these."""

    node: fx.Node


@dataclasses.dataclass(frozen=True, eq=False)
class Arith:
    """``fn(*args)`` over entries: integer arithmetic, a comparison, or a reduction over all elements.

    Entries are compared by identity: an entry that many others are computed from is one object.
    """

    fn: Callable[..., Any]
    args: tuple[Entry, ...]


class Extreme(NamedTuple):
    """The largest of the elements of a tensor at ``places`` (row-major), or the smallest: ``fn`` is `max` or `min`."""

    fn: Callable[..., Any]
    places: range


Entry = int | bool | Element | GraphInt | Arith


def in_order(
    entries: Iterable[Entry | None], whole: Callable[[Arith], bool] = lambda entry: False
) -> list[Element | GraphInt | Arith]:
    """``entries`` and everything that they are computed from, constants aside, each once, operands before results.

    The operands of an entry for which ``whole(entry)`` is true are left out.
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
    """The SymInts of the graph that ``entries`` are computed from."""
    return [entry for entry in in_order(entries) if isinstance(entry, GraphInt)]


def extreme_of(entry: Arith) -> Extreme | None:
    """The `Extreme` that ``entry`` is; None if it is none, or one of elements that do not lie at equal distances."""
    places = sorted({part.index for part in entry.args if isinstance(part, Element)})
    if entry.fn not in (max, min) or len(places) != len(entry.args) or len(tensors([entry])) != 1:
        return None
    found = range(places[0], places[-1] + 1, places[1] - places[0] if len(places) > 1 else 1)
    return Extreme(entry.fn, found) if list(found) == places else None


def tensors(entries: Iterable[Entry | None]) -> list[fx.Node]:
    """The index tensors that ``entries`` are computed from."""
    return list(dict.fromkeys(entry.tensor for entry in in_order(entries) if isinstance(entry, Element)))
