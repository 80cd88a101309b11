"""Sites: the slices of a graph whose bounds are positions, and what can be made of each.

buf[:, s:s + n] = x         write       a steady number of rows, at a moving place
buf[:, :end]                extent      a moving number of rows, from 0 or from a moving start
table[s:s + n], table[s]    gather      a steady number of rows, from a moving place
series[:, s:]               narrow      a fixed number of rows of a tensor that itself grows

A number is steady where it is fixed, or made of symbols that stay from step to step (`kinds`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import bounds_of, size_of, sliced_axis
from fxpass.graph.numbers import Derived, equal, guarded, number
from fxpass.graph.schemas import is_tagged

from .arithmetic import check
from .kinds import Kinds, Seen
from .positions import Positions

aten = torch.ops.aten

Kind = Literal["write", "extent", "gather", "narrow"]


@dataclasses.dataclass
class SliceSite:
    """One position-bounded slice: ``base`` along ``dim`` from ``start`` to ``end`` (None: to the end).

    ``rows`` is the number of rows where that is steady, ``writers`` the in-place ops that write through the slice, and
    ``squeezed`` tells that the dim is gone afterwards (``table[s]``), ``shared`` that a view shows: the memory is written later
    on, or the caller gets it.
    """

    node: fx.Node
    kind: Kind
    base: fx.Node
    dim: int
    start: Any
    end: Any
    rows: int | Derived | None
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


class SiteFinder:
    """Finds the sites of one graph. Positions may be learnt on the way, so nodes are asked for one at a time."""

    def __init__(self, graph: fx.Graph, positions: Positions, seen: Seen | None = None) -> None:
        self.graph = graph
        self.positions = positions
        self._writes = _writes_by_storage(graph)
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        self.kinds = Kinds(graph, positions, seen)

    def at(self, node: fx.Node) -> SliceSite | None:
        """The site at ``node``, or None if it is no position-bounded slice, or one of what a position sizes already.

        Raises:
            Refusal: it is one, and nothing sound can be made of it.
        """
        axis = sliced_axis(node)
        if axis is None or not any(i in self.positions for i in node.all_input_nodes):
            return None
        base, dim = axis
        squeezed = node.target is aten.select.int
        size = node.meta["val"].shape[dim] if not squeezed else 1
        rows = self.kinds.number(size, node)
        writers = self._writers_through(node)
        if not self.is_buffer(base) and (writers or not isinstance(rows, int)):
            return None  # of what grows by itself, a number of rows that moves with it
        start, end = bounds_of(node, size_of(base, dim, node))
        site = SliceSite(node, "narrow", base, dim, start, end, rows, writers, squeezed)
        self._refuse_bounds(site)
        if not self.is_buffer(base):
            site.shared = self._is_shared(node)
            return site
        site.kind = "write" if writers else "gather" if rows is not None else "extent"
        if site.kind == "write" and rows is None:
            if not equal(start, 0):
                raise Refusal(reasons.WRITTEN_FROM)
            site.kind = "extent"
        if site.kind == "write" and not site.is_assigned:
            self._refuse_writers(site)
        elif site.kind == "gather" or (site.kind == "extent" and not equal(start, 0)):
            self._refuse_stale(node)
        return site

    def _refuse_bounds(self, site: SliceSite) -> None:
        """Full reads and indexed writes have no bounds of their own: those of the slice are guarded.

        Raises:
            Refusal: they do not hold now, or cannot be computed on tensors.
        """
        size, start = site.base.meta["val"].shape[site.dim], number(site.start)
        stop = size if site.end is None else start + number(site.rows) if site.rows is not None else number(site.end)
        if not guarded(stop <= size):
            raise Refusal(reasons.OUTSIDE, how="its end is not known to be within the buffer")
        if site.rows is None and not guarded(start <= stop):
            raise Refusal(reasons.OUTSIDE, how="it ends before it starts")
        if site.rows is None and not self.positions.move(stop - start):
            raise Refusal(reasons.UNKNOWN_ROWS)
        for bound in (site.start, site.end):
            check(bound, self.positions)

    def _is_shared(self, node: fx.Node) -> bool:
        later = any(self._order[w] > self._order[node] for w in self._writes.get(aliases.storage(node), []))
        return later or any(u.op == "output" for u in _view_users(node))

    def is_buffer(self, base: fx.Node) -> bool:
        """Whether every size of ``base`` is steady: what grows is left to run as it is."""
        return self.kinds.are_steady(base.meta["val"].shape)

    def _writers_through(self, node: fx.Node) -> list[fx.Node]:
        """The in-place ops whose target is ``node`` or a view of it, or what such an op gives."""
        views, found = {node}, []
        for user in sorted(_view_users(node), key=self._order.__getitem__):
            if views.intersection(aliases.written(user)):
                found.append(user)
            if _is_view(user, views):
                views.add(user)
        return found

    def refuse_copy(self, node: fx.Node) -> None:
        """Refuse a copy in the place of ``node``, a view, where its memory is written through it or under it.

        Raises:
            Refusal: it is.
        """
        if self._writers_through(node):
            raise Refusal(reasons.SLICE_OF_SLICE)
        self._refuse_stale(node)

    def _refuse_writers(self, site: SliceSite) -> None:
        """Rows that are written in place are a copy for a while: refuse what a copy would show.

        Raises:
            Refusal: as for a gather, or an op writes to them and elsewhere in the buffer at once, or draws numbers for them,
                in an order that goes by strides.
        """
        self._refuse_stale(site.node, own=site.writers)
        memory = aliases.storage(site.node)
        for writer in site.writers:
            if is_tagged(writer.target, torch.Tag.nondeterministic_seeded):
                raise Refusal(reasons.DRAWS, op=writer.target)
            if [aliases.storage(target) for target in aliases.written(writer)].count(memory) > 1:
                raise Refusal(reasons.AT_ONCE, op=writer.target)

    def _refuse_stale(self, node: fx.Node, own: Collection[fx.Node] = ()) -> None:
        """A gather copies: refuse it if the memory is written again, by others than ``own``, while views of the slice are
        still to be read, or if who called the graph gets such a view."""
        users = _view_users(node)
        if any(u.op == "output" for u in users):
            raise Refusal(reasons.RETURNED_VIEW)
        last = max((self._order[u] for u in users), default=-1)
        for writer in self._writes.get(aliases.storage(node), []):
            if writer not in own and self._order[node] < self._order[writer] < last:
                raise Refusal(reasons.STALE)


def _writes_by_storage(graph: fx.Graph) -> dict[int | None, list[fx.Node]]:
    out: dict[int | None, list[fx.Node]] = {}
    for node in graph.nodes:
        for target in aliases.written(node):
            out.setdefault(aliases.storage(target), []).append(node)
    return out


def _view_users(node: fx.Node) -> set[fx.Node]:
    """All users of ``node`` and of the views of it."""
    views, todo = {node}, [node]
    while todo:
        for user in todo.pop().users:
            if user not in views and _is_view(user, views):
                views.add(user)
                todo.append(user)
    return {user for view in views for user in view.users}


def _is_view(node: fx.Node, views: set[fx.Node]) -> bool:
    """Whether ``node``, a user of one of ``views``, is one too: an op that writes in place gives what it wrote to."""
    own = aliases.storages(node)  # of a tuple of views, several at once
    shares = any(own & aliases.storages(i) for i in node.all_input_nodes if i in views)
    written = aliases.written(node)
    return shares and (not written or not views.isdisjoint(written))
