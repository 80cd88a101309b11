"""Reads of a cache go through a window: as many of its first rows as have room for what is read, in place of all.

    cache: [B, S, D]                                rows = placeholder bool[W]            end <= W <= S on every call
    k = cache[:, :end]                  ->          k = cache[:, :W]                      valid below end
    cache[:, s:end] = x                             index_copy_(cache, 1, arange(n) + s, x)

So what a step costs follows what is filled. The extent of such a read lies on an axis of ``W`` rows and not of ``S``, and so do
the masks that are made for it; all else is as for whole caches. What is written goes to the cache itself. The host says how
large a window is (`execute.buffers.windows`), as the size of one more input. There is one for all reads of one length, so these
lie on axes of one size, however large the caches are. The whole axis is read where the length cannot be worked out from the
inputs, or is the number of rows from a position to the end of the cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass.analysis.arithmetic import SUM, call_of
from fxpass.analysis.extents import Extent
from fxpass.analysis.kinds import Seen
from fxpass.analysis.positions import Positions, is_scalar
from fxpass.analysis.sites import SliceSite
from fxpass.graph.inputs import buffer_of
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import Derived, equal, hint, number, symbols, to_expr
from fxpass.rewriting.outside.around import Window
from fxpass.rewriting.outside.formulas import formula

from .buffer_edits import placeholder

aten = torch.ops.aten

LEAST = 64
"""A cache of so many rows is read in full."""


@dataclasses.dataclass(frozen=True)
class _Open:
    """A window of as many rows as the input called ``name`` has, for extents of ``length`` on axes of ``sizes``."""

    name: str
    length: Any
    sizes: Set[Any]
    around: Window


class Windows:
    """The windows of one graph. ``sized(length, sizes)`` gives the size of one that has room for ``length`` rows of axes of
    ``sizes``."""

    def __init__(self, sized: Callable[[torch.SymInt, Sequence[Any]], torch.SymInt]) -> None:
        self._sized = sized
        self._open: list[_Open] = []

    @property
    def are_open(self) -> bool:
        """Whether there is a window."""
        return bool(self._open)

    def open(self, graph: fx.Graph, reads: Iterable[tuple[SliceSite, Extent]], positions: Positions) -> None:
        """Open a window, a new last input of ``graph``, for each length of ``reads``."""
        inputs = graph.find_nodes(op="placeholder")
        given = [node for node in inputs if buffer_of(node) is None]
        found: dict[Any, list[Extent]] = {}
        for site, extent in reads:
            if _is_of_first_rows(site, extent) and _is_known(extent.length, positions):
                found.setdefault(to_expr(number(extent.length)), []).append(extent)
        with faking(mode_of([n.meta["val"] for n in inputs])):
            for length, extents in found.items():
                axes = {to_expr(e.full_size): e for e in extents}
                with contextlib.suppress(ValueError):
                    formulas = tuple(formula(e.full, given) for e in axes.values())
                    around = Window(formula(extents[0].length, given, positions.resolve), formulas)
                    if all(hint(e.full_size) > LEAST for e in axes.values()):
                        size = self._sized(number(extents[0].length), [e.full_size for e in axes.values()])
                        made = placeholder(graph, f"rows_{len(self._open)}", torch.empty([size], dtype=torch.bool))
                        self._open.append(_Open(made.name, length, axes.keys(), around))

    def of(self, extent: Extent, graph: fx.Graph) -> Extent:
        """``extent`` on the axis of its window; as it is where it has none."""
        for one in self._open:
            if one.length == to_expr(number(extent.length)) and to_expr(extent.full_size) in one.sizes:
                rows = next(n for n in graph.find_nodes(op="placeholder") if n.name == one.name)
                size = Derived(aten.sym_size.int, (rows, 0), rows.meta["val"].shape[0], next(iter(extent.reads)))
                return dataclasses.replace(extent, full=size)
        return extent

    def sizes(self, graph: fx.Graph) -> set[Any]:
        """The symbols of the sizes of the windows."""
        return {s for node in self._rows(graph) for s in symbols(node.meta["val"])}

    def seen(self, graph: fx.Graph, seen: Seen | None) -> Seen | None:
        """``seen``, with the sizes of the windows as variants: the core is compiled for them."""
        own = self.sizes(graph)
        if not own:
            return seen
        known = seen or Seen()
        return dataclasses.replace(known, kinds={**known.kinds, **dict.fromkeys(own, "variant")})

    def close(self, graph: fx.Graph) -> tuple[Window, ...]:
        """Those windows that ``graph`` reads through, in the order of its inputs; the inputs of others are erased."""
        for node in self._rows(graph):
            if not node.users:
                graph.erase_node(node)
        names = {node.name for node in self._rows(graph)}
        return tuple(one.around for one in self._open if one.name in names)

    def _rows(self, graph: fx.Graph) -> list[fx.Node]:
        names = {one.name for one in self._open}
        return [n for n in graph.find_nodes(op="placeholder") if n.name in names]


def _is_of_first_rows(site: SliceSite, extent: Extent) -> bool:
    """Whether the slice does not reach to the end of the buffer, and is not written to at a place that moves."""
    if equal(site.start, 0):
        return True
    return not site.writers and site.end is not None and not equal(site.end, extent.full_size)


def _is_known(length: Any, positions: Positions) -> bool:
    """Whether ``length`` is made of numbers of the caller's, and of sizes."""
    seen, todo = set(), [length]
    while todo:
        value = positions.resolve(todo.pop())
        if value in seen or not isinstance(value, (fx.Node, Derived)):
            continue
        seen.add(value)
        target, args = call_of(value)
        if target is aten.sym_size.int or isinstance(value, fx.Node) and value.op == "placeholder":
            continue
        if isinstance(value, fx.Node) and not is_scalar(value):
            return False
        todo += args[0] if target is SUM else args
    return True
