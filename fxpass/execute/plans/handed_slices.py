"""Slices that the caller takes of a cache, and hands in longer in each call.

    k[:, p] = new
    y = attend(q, k[:, :p + 1])        attend is compiled: k is the same memory, written since, with a row more

When the graph is compiled, nothing tells such a slice from a prompt. So some calls are looked at, of a graph that works on all
of what it is given and in which nothing is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass import reasons
from fxpass.execute.partition.outside import works_on
from fxpass.graph.inputs import belongs_to_module
from fxpass.graph.numbers import symbols
from fxpass.graph.source_lines import source_of
from fxpass.graph.values import is_tensor
from fxpass.report.names import input_name

_RISES = 2
"""After so many calls in a row, each with as many rows more, it is a cache's slice."""
_MOST_CALLS = 64
"""So many calls are looked at."""


class _Seen(NamedTuple):
    """A tensor at one call: its sizes, how often its memory was written, the rows that it had more than before, and in how many
    calls in a row."""

    sizes: tuple[int, ...]
    version: int
    rows: int = 0
    rises: int = 0


def watching_slices(
    run: Callable[..., Any], normal: fx.GraphModule | None, told: Callable[[str], None]
) -> Callable[..., Any]:
    """``run``, which is compiled from ``normal``, with calls looked at where an input may be such a slice. ``told`` is called
    once for each that is one, with a reason."""
    places = _may_be_slices(normal) if normal is not None else {}
    return _HandedSlices(run, places, told) if places else run


def _may_be_slices(normal: fx.GraphModule) -> dict[int, str]:
    """For each input of ``normal`` that products or attention work on along a symbolic size, by its place: what is to be
    said if it is such a slice."""
    inputs = enumerate(normal.graph.find_nodes(op="placeholder"))
    sized = ((place, node) for place, node in inputs if node.users and is_tensor(node))
    return {place: _said(node) for place, node in sized if _is_worked_on(normal, node) and not belongs_to_module(node)}


def _said(node: fx.Node) -> str:
    return reasons.HANDED.text(source=source_of(next(iter(node.users))), what=input_name(node))


def _is_worked_on(normal: fx.GraphModule, node: fx.Node) -> bool:
    value = node.meta["val"]
    moving = {symbol for size in value.shape for symbol in symbols(size)}
    return value.is_floating_point() and bool(moving) and works_on([normal.graph], moving) is not None


class _HandedSlices:
    """Calls ``run``. Arguments at the ``places`` may be such slices: ``told`` gets what ``places`` says of those that are."""

    def __init__(self, run: Callable[..., Any], places: Mapping[int, str], told: Callable[[str], None]) -> None:
        self._run, self._places, self._told = run, dict(places), told
        self._seen: dict[tuple[int, int], _Seen] = {}
        self._calls = 0

    def __call__(self, *args: Any) -> Any:
        if self._places:
            self._look_at(args)
        return self._run(*args)

    def _look_at(self, args: tuple[Any, ...]) -> None:
        self._calls += 1
        found = [self._places.pop(place) for place in list(self._places) if self._is_slice(place, args[place])]
        if self._calls == _MOST_CALLS:
            self._places.clear()
        for text in found:
            self._told(text)

    def _is_slice(self, place: int, tensor: Any) -> bool:
        if type(tensor) is not torch.Tensor or tensor.layout is not torch.strided or tensor.is_inference():
            return False
        memory = tensor.untyped_storage()
        if memory.nbytes() <= tensor.nbytes:  # it is all of it
            return False
        key, now = (place, memory.data_ptr()), _Seen(tuple(tensor.shape), tensor._version)
        before = self._seen.get(key)
        if before is not None and (rows := _rows_more(before, now)):
            now = now._replace(rows=rows, rises=before.rises + 1 if rows == before.rows else 1)
        self._seen[key] = now
        return now.rises >= _RISES


def _rows_more(before: _Seen, now: _Seen) -> int:
    """How many rows the tensor has more along one dim, if it is longer along that alone and was written since; otherwise 0."""
    if len(before.sizes) != len(now.sizes) or now.version <= before.version:
        return 0
    more = [b - a for a, b in zip(before.sizes, now.sizes, strict=True) if a != b]
    return max(more[0], 0) if len(more) == 1 else 0
