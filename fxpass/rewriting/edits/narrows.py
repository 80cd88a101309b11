"""A slice of a growing tensor becomes a slice of a fixed length, where a guard fixes the number of its rows.

    x[:, :, s:]         64 steps, by a guard        ->        clone(x[:, :, T - 64:T])
    x[:, s]                                         ->        clone(squeeze(x[:, s:s + 1], 1))

The size of ``T - 64:T`` is static by construction; that of ``-64:`` would be ``Min(64, T)``. The copy has strides that do not
grow with T. The copy is left out where the memory is written later on, since a copy would not show that.
"""

from __future__ import annotations

import operator

import torch

from fxpass.analysis.sites import SliceSite
from fxpass.graph.numbers import equal
from fxpass.rewriting.nodes.builder import Builder

aten = torch.ops.aten


def rewrite_narrow(site: SliceSite, b: Builder) -> None:
    """Rewrite one site in place. A slice that does not reach the end keeps its start, and gets its length written out."""
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
