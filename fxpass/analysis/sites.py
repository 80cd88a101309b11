"""Sites: the slices of a graph whose bounds are positions, and what each of them can become.

buf[:, s:s + n] = x         write       a steady number of rows, at a moving place
buf[:, :end]                extent      a moving number of rows, from 0 or from a moving start
table[s:s + n], table[s]    gather      a steady number of rows, from a moving place
series[:, s:]               narrow      a fixed number of rows of a tensor that grows itself

A number is steady if it is fixed, or made of symbols that stay from step to step (`kinds`).
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
from fxpass.graph.layouts import dense_order
from fxpass.graph.numbers import Derived, equal, guarded, number
from fxpass.graph.schemas import is_tagged

from .arithmetic import check
from .kinds import Kinds, Seen
from .positions import Positions
from .rules.parts import is_only_written

aten = torch.ops.aten

SiteKind = Literal["write", "extent", "gather", "narrow"]


@dataclasses.dataclass
class SliceSite:
    """One slice with positions for bounds: ``base`` along ``dim``, from ``start`` to ``end``, or to its end where that is None.

    rows: the number of rows, if it is steady.
    writers: the in-place ops that write through the slice.
    squeezed: whether the dim is gone afterwards (``table[s]``).
    shared: whether a copy would not do for a narrow: the memory is written later on, or the caller gets the view.
    """

    node: fx.Node
    kind: SiteKind
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
    def size(self) -> Any:
        """How many rows there are to take slices of."""
        return self.base.meta["val"].shape[self.dim]

    @property
    def buffer(self) -> fx.Node:
        """The node whose memory is sliced: a graph input, or an op that makes a new tensor."""
        return aliases.root(self.base)

    @property
    def is_assigned(self) -> bool:
        """Whether the only thing that is done with the slice is to copy something else into it."""
        return all(
            user.target is aten.copy_.default and user.args[0] is self.node and user.args[1] is not self.node
            for user in aliases.view_users(self.node)
        )


def is_slice(node: fx.Node) -> bool:
    """Whether ``node`` is a slice, a select or a narrow."""
    return node.target in (aten.slice.Tensor, aten.select.int, aten.narrow.default)


class SiteFinder:
    """Finds the sites of one graph. It is asked for one node at a time, since more positions may become known on the way."""

    def __init__(self, graph: fx.Graph, positions: Positions, seen: Seen | None = None) -> None:
        self.graph = graph
        self.positions = positions
        self._writes = aliases.writes_by_storage(graph)
        self._order = {node: i for i, node in enumerate(graph.nodes)}
        self.kinds = Kinds(graph, positions, seen)

    def at(self, node: fx.Node, masked: Collection[int] | None = None) -> SliceSite | None:
        """The site at ``node``. None if its bounds are no positions, or it slices a tensor that grows by as much as its bounds.

        ``masked`` are the dims of what is sliced that have extents. Where these are not known yet, they are all that move as
        positions do, such as the rows in ``k[on][:, :, :end]`` that a mask takes out.

        Raises:
            Refusal: the slice is a site, and cannot be rewritten soundly.
        """
        axis = sliced_axis(node)
        if axis is None or not any(i in self.positions for i in node.all_input_nodes):
            return None
        base, dim = axis
        squeezed = node.target is aten.select.int
        rows = self.kinds.number(1 if squeezed else node.meta["val"].shape[dim], node)
        writers = self._writers_through(node)
        is_buffer = self.is_buffer(base) or self._is_masked_buffer(base, dim, masked)
        if not is_buffer and (writers or not isinstance(rows, int)):
            return None
        start, end = bounds_of(node, size_of(base, dim, node))
        site = SliceSite(node, "narrow", base, dim, start, end, rows, writers, squeezed)
        self._guard_bounds(site)
        if is_buffer:
            site.kind = _kind(site)
            self._refuse_copies(site)
        else:
            site.shared = self._is_shared(node)
        return site

    def _refuse_copies(self, site: SliceSite) -> None:
        """Refuse a site that is rewritten through a copy of its rows, where the copy could be told from the slice.

        Raises:
            Refusal: it could.
        """
        if site.kind == "write" and not site.is_assigned:
            self._refuse_writers(site)
        elif site.kind == "gather" or site.kind == "extent" and not equal(site.start, 0):
            self._refuse_stale(site.node, own=site.writers)

    def _guard_bounds(self, site: SliceSite) -> None:
        """Guard that the bounds of a slice lie within the buffer, since a full read or an indexed write does not check them.

        Raises:
            Refusal: they do not lie there now, or cannot be computed on tensors.
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
        return later or any(u.op == "output" for u in aliases.view_users(node))

    def is_buffer(self, base: fx.Node) -> bool:
        """Whether every size of ``base`` is steady. A tensor that grows is no buffer."""
        return self.kinds.are_steady(base.meta["val"].shape)

    def _is_masked_buffer(self, base: fx.Node, dim: int, masked: Collection[int] | None) -> bool:
        """Whether ``base`` is a buffer along ``dim``, and of all that it has along the dims whose sizes are not steady, some is
        ``masked``."""
        moving = [d for d, size in enumerate(base.meta["val"].shape) if not self.kinds.are_steady([size])]
        known = masked if masked is not None else [d for d in moving if self.positions.move(base.meta["val"].shape[d])]
        return dim not in moving and set(moving) <= set(known)

    def _writers_through(self, node: fx.Node) -> list[fx.Node]:
        """The in-place ops that write to ``node``, to a view of it, or to what another of them returns."""
        views, found = {node}, []
        for user in sorted(aliases.view_users(node), key=self._order.__getitem__):
            if views.intersection(aliases.written(user)):
                found.append(user)
            if aliases.is_view_of(user, views):
                views.add(user)
        return found

    def refuse_copy(self, node: fx.Node) -> None:
        """Refuse a copy in the place of the view ``node``, where the two could be told apart.

        Raises:
            Refusal: the view is written to, or its memory is while the view is still to be read.
        """
        if self._writers_through(node):
            raise Refusal(reasons.SLICE_OF_SLICE)
        self._refuse_stale(node)

    def _refuse_writers(self, site: SliceSite) -> None:
        """Refuse a site whose rows are written in a copy, which is put back, where the copy could be told from the slice.

        Raises:
            Refusal: the memory is written by others meanwhile; or a writer also writes elsewhere in the buffer, or draws
                random numbers, in an order that depends on strides.
        """
        self._refuse_stale(site.node, own=site.writers)
        memory = aliases.storage(site.node)
        for writer in site.writers:
            if is_tagged(writer.target, torch.Tag.nondeterministic_seeded):
                raise Refusal(reasons.DRAWS, op=writer.target)
            if [aliases.storage(target) for target in aliases.written(writer)].count(memory) > 1:
                raise Refusal(reasons.AT_ONCE, op=writer.target)

    def _refuse_stale(self, node: fx.Node, own: Collection[fx.Node] = ()) -> None:
        """Refuse a copy of the slice ``node``.

        Raises:
            Refusal: ops that are not among ``own`` write to its memory before the last use of a view of it, or the caller
                gets such a view, and could tell it from one of a copy.
        """
        users = aliases.view_users(node)
        if any(u.op == "output" for u in users) and not self._may_be_copied(node, users):
            raise Refusal(reasons.RETURNED_VIEW)
        last = max((self._order[u] for u in users), default=-1)
        for writer in self._writes.get(aliases.storage(node), []):
            if writer not in own and self._order[node] < self._order[writer] < last:
                raise Refusal(reasons.STALE)

    def _may_be_copied(self, node: fx.Node, users: Collection[fx.Node]) -> bool:
        """Whether the caller, who gets views of the slice ``node`` among its ``users``, cannot tell them from views of a copy:
        they lie densely, and it knows nothing else in the memory."""
        memory, results = aliases.storage(node), self.graph.output_node().all_input_nodes
        given = [r for r in results if memory in aliases.storages(r)]
        own = all((r is node or r in users) and dense_order(r.meta["val"]) is not None for r in given)
        return own and aliases.root(node).op == "call_function"


def _kind(site: SliceSite) -> SiteKind:
    """What the slice of a buffer becomes.

    Raises:
        Refusal: it is written and read, its number of rows moves, and it does not start at 0.
    """
    if site.rows is not None:
        return "write" if site.writers else "gather"
    if site.writers and not equal(site.start, 0) and not is_only_written(site.node):
        raise Refusal(reasons.WRITTEN_FROM)
    return "extent"
