"""The tail of a growing tensor, of a length that a guard fixes, becomes a `narrow` of that length.

    x[:, :, s:]         64 steps, by a guard        ->        clone(x[:, :, T - 64:T])

Static by construction: the negative start ``x[..., -64:]`` would come out as ``Min(64, T)``. The copy gives it strides
that do not grow with T; it is left out where the memory is written again, which a view would have to show.
"""

from __future__ import annotations

import operator

import torch

from fxpass.analysis.sites import Site
from fxpass.graph.numbers import equal

from .builder import Builder

aten = torch.ops.aten


def rewrite_narrow(site: Site, b: Builder) -> None:
    """Rewrite one site in place; a slice that does not reach the end keeps its start and gets its length spelled out."""
    b.at(site.node)
    size = site.base.meta["val"].shape[site.dim]
    if site.end is None or equal(site.end, size):
        end = b.call(aten.sym_size.int, site.base, site.dim)
        start = b.call(operator.sub, end, site.rows)
    else:
        start = site.start
        end = b.call(operator.add, start, site.rows)
    rows = b.call(aten.slice.Tensor, site.base, site.dim, start, end)
    if not site.shared:
        rows = b.call(aten.clone.default, rows, memory_format=torch.contiguous_format)
    b.replace(site.node, rows)
