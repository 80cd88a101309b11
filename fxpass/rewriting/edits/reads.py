"""Reads of a number of rows that depends on a position become reads of the whole buffer.

    k = buf[:, :, :end]        ->        k = buf                                     valid below end
    k = buf[:, :, a:b]         ->        k = index_select(buf, 2, min(arange(S) + a_t, S - 1))    valid below b - a

`analysis.extents` follows which part is valid to the ops that consume it.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import Extent
from fxpass.analysis.sites import SliceSite
from fxpass.graph.bounds import size_of
from fxpass.graph.numbers import derived, equal, guarded
from fxpass.graph.values import is_tensor
from fxpass.rewriting.nodes.builder import Builder

aten = torch.ops.aten


def start_extent(site: SliceSite, graph: fx.Graph) -> Extent:
    """The extent that the read at ``site`` starts."""
    full = _full(site, graph)
    end = site.end if site.end is not None else full
    length = end if equal(site.start, 0) else derived(operator.sub, (end, site.start), site.node)
    return Extent(length, full, frozenset([site.node]))


def _full(site: SliceSite, graph: fx.Graph) -> Any:
    """The full size of the sliced dim. It is taken from a graph input of that size if there is one, since that is known
    everywhere in the graph."""
    size = site.base.meta["val"].shape[site.dim]
    for node in graph.nodes:
        if node.op != "placeholder" or isinstance(size, int):
            break
        if is_tensor(node):
            for dim, own in enumerate(node.meta["val"].shape):
                if isinstance(own, torch.SymInt) and equal(own, size):
                    return size_of(node, dim, site.node)
    return size_of(site.base, site.dim, site.node)


def on_shortest_axis(extent: Extent, known: Iterable[Extent]) -> Extent:
    """``extent`` on the shortest axis that has room for its length: a long mask is cut to the ring buffer that it is for."""
    for other in known:
        same = equal(other.full_size, extent.full_size) or not equal(other.length, extent.length)
        if not same and guarded(other.full_size < extent.full_size):
            extent = dataclasses.replace(extent, full=other.full)
    return extent


def rewrite_read(site: SliceSite, extent: Extent, b: Builder) -> None:
    """Let the users of the slice take the whole buffer, or all rows from ``start`` on, with the last one repeated."""
    b.at(site.node)
    if equal(site.start, 0):
        whole = b.current(site.base)
        if not equal(extent.full_size, site.base.meta["val"].shape[site.dim]):
            whole = b.call(aten.slice.Tensor, whole, site.dim, 0, b.full(extent))
        b.replace(site.node, whole)
        return
    size = b.full(extent)
    steps = b.call(
        aten.add.Tensor, b.call(aten.arange.default, size, device=site.device), b.twin(site.start, site.device)
    )
    last = b.arithmetic(operator.sub, b.size(site.base, site.dim), 1)
    slots = b.call(aten.clamp_max.default, steps, last)
    b.replace(site.node, b.taken(site.base, site.dim, slots))
