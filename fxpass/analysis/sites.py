"""Sites: the slices of a graph whose bounds are positions, and what can be made of each.

buf[:, s:s + n] = x         write       a fixed number of rows, at a moving place
buf[:, :end]                extent      a moving number of rows, from 0 or from a moving start
table[s:s + n], table[s]    gather      a fixed number of rows, from a moving place
series[:, s:]               narrow      a fixed number of rows of a tensor that itself grows
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import fx

from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import TO_THE_END, slice_arguments
from fxpass.graph.numbers import equal, fixed, guarded, number, plain, symbols
from fxpass.graph.schemas import is_tagged

from .positions import Positions

aten = torch.ops.aten

Kind = Literal["write", "extent", "gather", "narrow"]


@dataclasses.dataclass
class Site:
    """One position-bounded slice: ``base`` along ``dim`` from ``start`` to ``end`` (None: to the end).

    ``rows`` is the number of rows where that is fixed, ``writers`` the in-place ops that write through the slice, and
    ``squeezed`` tells that the dim is gone afterwards (``table[s]``), ``shared`` that a view shows: the memory is written later
    on, or the caller gets it.
    """

    node: fx.Node
    kind: Kind
    base: fx.Node
    dim: int
    start: Any
    end: Any
    rows: int | None
    writers: list[fx.Node]
    squeezed: bool = False
    shared: bool = False

    @property
    def device(self) -> torch.device:
        return self.base.meta["val"].device

    @property
    def buffer(self) -> fx.Node:
        """The graph input (or the op) whose memory is sliced."""
        return aliases.root(self.base)

    @property
    def is_assigned(self) -> bool:
        """Whether nothing is done with the slice but to copy something else into it."""
        return all(
            user.target is aten.copy_.default and user.args[0] is self.node and user.args[1] is not self.node
            for user in _view_users(self.node)
        )


def is_slice(node: fx.Node) -> bool:
    """Whether ``node`` is an op that a site can be."""
    return node.target in (aten.slice.Tensor, aten.select.int, aten.narrow.default)


class Sites:
    """Finds the sites of one graph. Positions may be learnt on the way, so nodes are asked for one at a time."""

    def __init__(self, graph: fx.Graph, positions: Positions) -> None:
        self.positions = positions
        self._writes = _writes_by_storage(graph)
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        self.capacity = self._capacity_symbols(graph)

    def at(self, node: fx.Node) -> Site | None:
        """The site at ``node``, or None if it is no position-bounded slice (or one of a growing tensor, left to run).

        Raises:
            Refusal: it is one, and nothing sound can be made of it.
        """
        bounds = _bounds(node)
        if bounds is None or not any(b in self.positions for b in bounds[2:]):
            return None
        base, dim, start, end = bounds
        size = base.meta["val"].shape[dim]
        squeezed = node.target is aten.select.int
        end = None if isinstance(end, int) and end == TO_THE_END else end
        rows = 1 if squeezed else fixed(node.meta["val"].shape[dim])
        writers = self._writers_through(node)
        if not self.is_buffer(base):
            if rows is None or writers:
                return None
            later = any(self._order[w] > self._order[node] for w in self._writes.get(aliases.storage(base), []))
            shared = later or any(u.op == "output" for u in _view_users(node))
            return Site(node, "narrow", base, dim, start, end, rows, [], shared=shared)
        kind: Kind = "write" if writers else "gather" if rows is not None else "extent"
        site = Site(node, kind, base, dim, start, end, rows, writers, squeezed)
        if kind == "write" and rows is None:
            if not equal(start, 0):
                raise Refusal("a number of rows that depends on the position is written from a start that is not 0")
            site.kind = kind = "extent"
        if not guarded(number(start) >= 0):
            raise Refusal("the start of the slice is not known to be non-negative")
        if end is not None and rows is None and not guarded(number(end) >= 0):
            raise Refusal("the end of the slice is not known to be non-negative")
        stop = size if end is None else number(start) + rows if rows is not None else number(end)
        if not guarded(stop <= size):
            raise Refusal("the end of the slice is not known to be within the buffer")
        if kind == "write" and not site.is_assigned:
            self._refuse_writers(site)
        elif kind == "gather" or (kind == "extent" and not equal(start, 0)):
            self._refuse_stale(node)
        return site

    def is_buffer(self, base: fx.Node) -> bool:
        """Whether every size of ``base`` is fixed, or the capacity of a cache: what grows is left to run as it is."""
        return all(isinstance(s, int) or symbols(s) <= self.capacity for s in base.meta["val"].shape)

    def _capacity_symbols(self, graph: fx.Graph) -> set[Any]:
        """The symbols in the sizes of graph inputs that are written through position-bounded slices, and those that go with
        them: an attention mask that is sliced like the cache, and has its size, keeps it (a guard).

        A position is never one. In the graph of the step that fills a cache, a guard may have made its length ``s0 + 1``:
        then everything of that cache moves with the position, and is left to run as it is.
        """
        buffers: list[fx.Node] = []
        written: dict[Any, Any] = {}
        read: dict[Any, Any] = {}
        for node in graph.nodes:
            bounds, buffer = _bounds(node), aliases.root(node)
            if not bounds or not any(b in self.positions for b in bounds[2:]) or buffer.op != "placeholder":
                continue
            size = bounds[0].meta["val"].shape[bounds[1]]
            if self._writers_through(node):
                buffers.append(buffer)
                written[plain(size)] = size
            else:
                read[plain(size)] = size
        positions = {p for origin in self.positions.origins for p in symbols(origin.meta["val"])}
        for size, own in itertools.product(read.values(), written.values()):
            if not equal(own, size) and symbols(own) and not symbols(own) & positions:
                guarded(own == size)
        return {symbol for b in buffers for size in b.meta["val"].shape for symbol in symbols(size)} - positions

    def _writers_through(self, node: fx.Node) -> list[fx.Node]:
        """The in-place ops whose target is ``node`` or a view of it, or what such an op gives."""
        views, found = {node}, []
        for user in sorted(_view_users(node), key=self._order.__getitem__):
            if views.intersection(aliases.written(user)):
                found.append(user)
            if aliases.storage(node) in aliases.storages(user):
                views.add(user)
        return found

    def refuse_copy(self, node: fx.Node) -> None:
        """Refuse a copy in the place of ``node``, a view, where its memory is written through it or under it.

        Raises:
            Refusal: it is.
        """
        if self._writers_through(node):
            raise Refusal("a slice of a slice is written in place")
        self._refuse_stale(node)

    def _refuse_writers(self, site: Site) -> None:
        """Rows that are written in place are a copy for a while: refuse what a copy would show.

        Raises:
            Refusal: as for a gather, or an op writes to them and elsewhere in the buffer at once, or draws numbers for them,
                in an order that goes by strides.
        """
        self._refuse_stale(site.node, own=site.writers)
        memory = aliases.storage(site.node)
        for writer in site.writers:
            if is_tagged(writer.target, torch.Tag.nondeterministic_seeded):
                raise Refusal(f"{writer.target} draws numbers in place")
            if [aliases.storage(target) for target in aliases.written(writer)].count(memory) > 1:
                raise Refusal(f"{writer.target} writes to the buffer in several places at once")

    def _refuse_stale(self, node: fx.Node, own: Collection[fx.Node] = ()) -> None:
        """A gather copies: refuse it if the memory is written again, by others than ``own``, while views of the slice are
        still to be read, or if who called the graph gets such a view."""
        users = _view_users(node)
        if any(u.op == "output" for u in users):
            raise Refusal("the graph returns a view of the buffer")
        last = max((self._order[u] for u in users), default=-1)
        for writer in self._writes.get(aliases.storage(node), []):
            if writer not in own and self._order[node] < self._order[writer] < last:
                raise Refusal("the slice is read after the buffer has been written again")


def _writes_by_storage(graph: fx.Graph) -> dict[int | None, list[fx.Node]]:
    out: dict[int | None, list[fx.Node]] = {}
    for node in graph.nodes:
        for target in aliases.written(node):
            out.setdefault(aliases.storage(target), []).append(node)
    return out


def _view_users(node: fx.Node) -> set[fx.Node]:
    """All users of ``node`` and of the views of it."""
    memory, found, todo = aliases.storage(node), set(), [node]
    while todo:
        for user in todo.pop().users:
            if user not in found:
                found.add(user)
                if memory in aliases.storages(user):
                    todo.append(user)
    return found


def _bounds(node: fx.Node) -> tuple[fx.Node, int, Any, Any] | None:
    """(base, dim, start, end) of a slice, a select or a narrow."""
    if node.target is aten.slice.Tensor:
        base, dim, start, end, step = slice_arguments(node)
        if step != 1:
            return None
    elif node.target is aten.select.int:
        base, dim, start = node.args
        end = None
    elif node.target is aten.narrow.default:
        base, dim, start, length = node.args
        end = length if equal(start, 0) else None
    else:
        return None
    return base, dim % base.meta["val"].dim(), start, end
