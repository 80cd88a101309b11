"""Capacities: sizes of caches along the dim in which rows are written and read.

    cache: [B, s, D]        cache[:, start:end] = rows; attention over cache[:, :end]          s is a capacity, and B is none

A capacity may differ from request to request, and little that is computed depends on it: masks, and what they are applied to.
So code in which capacities are symbols is as good as code for each of them (`execute.compilation.regions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.bounds import sliced_axis
from fxpass.graph.numbers import symbols

from .sites import SliceSite

aten = torch.ops.aten


def capacities(graph: fx.Graph, sites: Iterable[SliceSite]) -> set[Any]:
    """The symbols of the sizes along which the ``sites`` of ``graph`` slice, and along which inputs that it writes are
    sliced."""
    return sizes_sliced(sites) | {s for size in _sliced(graph) for s in symbols(size)}


def sizes_sliced(sites: Iterable[SliceSite]) -> set[Any]:
    """The symbols of the sizes along which ``sites`` slice."""
    return {s for site in sites for s in symbols(site.size)}


def chunks(graph: fx.Graph, sites: Iterable[SliceSite]) -> set[Any]:
    """The symbols of the numbers of rows that the ``sites`` of ``graph`` write, and of how many of these are taken: the caller
    chooses how many.

    A loop that has some tokens checked at once hands in another number from call to call, and may ask for the last ones.
    """
    written = [site.node.meta["val"].shape[site.dim] for site in sites if site.kind == "write" and not site.squeezed]
    found = {symbol for size in written for symbol in symbols(size)}
    for node in graph.nodes if found else ():
        axis = sliced_axis(node)
        if axis is not None and node.target is not aten.select.int and symbols(axis[0].meta["val"].shape[axis[1]]) & found:
            found |= symbols(node.meta["val"].shape[axis[1]])
    return found


def _sliced(graph: fx.Graph) -> Iterator[Any]:
    written = {aliases.storage(w) for n in graph.nodes for w in aliases.written(n)}
    for node in graph.nodes:
        axis = sliced_axis(node)
        if axis is not None and aliases.root(axis[0]).op == "placeholder" and aliases.storage(axis[0]) in written:
            yield axis[0].meta["val"].shape[axis[1]]
