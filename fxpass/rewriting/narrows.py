"""Rows of a growing tensor, of a number that a guard fixes, become a slice of that length.

    x[:, :, s:]         64 steps, by a guard        ->        clone(x[:, :, T - 64:T])
    x[:, s]                                         ->        clone(squeeze(x[:, s:s + 1], 1))

Static by construction: the negative start ``x[..., -64:]`` would come out as ``Min(64, T)``. The copy gives it strides
that do not grow with T; it is left out where the memory is written again, which a view would have to show.
"""

from __future__ import annotations

import operator

import torch

from fxpass.analysis.sites import SliceSite
from fxpass.graph.numbers import equal

from .builder import Builder

aten = torch.ops.aten


def rewrite_narrow(site: SliceSite, b: Builder) -> None:
    """Rewrite one site in place; a slice that does not reach the end keeps its start and gets its length spelled out."""
    b.at(site.node)
    size = site.base.meta["val"].shape[site.dim]
    if site.end is None or equal(site.end, size):
        end = b.call(aten.sym_size.int, site.base, site.dim)
        start = b.call(operator.sub, end, site.rows)
    else:
        start = b.number(site.start)
        end = b.call(operator.add, start, site.rows)
    rows = b.call(aten.slice.Tensor, site.base, site.dim, start, end)
    if site.squeezed:
        rows = b.call(aten.squeeze.dim, rows, site.dim)
    if not site.shared:
        rows = b.call(aten.clone.default, rows, memory_format=torch.contiguous_format)
    b.replace(site.node, rows)
