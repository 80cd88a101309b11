"""Writes through a position-bounded slice become indexed writes.

    rows = buf[:, :, s:s + 1]             slots = arange(1) + s_t
    copy_(rows, k)                  ->    index_copy_(buf, 2, slots, k)                       buf: contiguous
                                          index_put_(buf, [None, None, slots], k)             any other

A source that shares memory with the buffer is copied first (``buf[s:s + 1] = buf[:1]``).

Other in-place ops write to a copy of the rows, which is put back after each of them:

    rows = buf[:, :, s:s + 1]             rows = index_select(buf, 2, slots)
    mul_(rows[0], 2)                ->    mul_(rows[0], 2)
                                          index_copy_(buf, 2, slots, rows)
"""

from __future__ import annotations

import torch
from torch import fx

from fxpass.analysis.sites import SliceSite
from fxpass.graph import aliases
from fxpass.graph.layouts import is_contiguous
from fxpass.graph.numbers import number, to_expr
from fxpass.rewriting.nodes import bits
from fxpass.rewriting.nodes.builder import Builder

aten = torch.ops.aten


def rewrite_write(site: SliceSite, b: Builder) -> None:
    """Rewrite one write site in place."""
    slots = _slots(site, b.at(site.node))
    if site.is_assigned:
        for writer in site.writers:
            _copy(site, writer, slots, b.at(writer))
        return
    rows = _gather(site, slots, b.at(site.node))
    b.replace(site.node, rows)
    for writer in site.writers:
        _write(site, slots, _unsqueezed(site, rows, b.at(writer.next)), b)


def rewrite_gather(site: SliceSite, b: Builder) -> None:
    """Rewrite a read of a fixed number of rows: ``table[s:s + n]`` -> ``index_select(table, 0, arange(n) + s_t)``."""
    b.at(site.node)
    b.replace(site.node, _gather(site, _slots(site, b), b))


def _slots(site: SliceSite, b: Builder) -> fx.Node:
    steps = b.call(aten.arange.default, b.number(site.rows), device=site.device)
    return b.call(aten.add.Tensor, steps, b.twin(site.start, site.device))


def _gather(site: SliceSite, slots: fx.Node, b: Builder) -> fx.Node:
    rows = b.taken(site.base, site.dim, slots)
    return b.call(aten.squeeze.dim, rows, site.dim) if site.squeezed else rows


def _copy(site: SliceSite, writer: fx.Node, slots: fx.Node, b: Builder) -> None:
    """Replace the `copy_` ``writer``. It casts and broadcasts; `index_copy_` does not, so this is done before."""
    source, target = writer.args[1], site.base.meta["val"]
    assert isinstance(source, fx.Node)
    value = source.meta["val"]
    if aliases.storage(source) == aliases.storage(site.base):
        source = b.call(aten.clone.default, source)
    if value.dtype != target.dtype:
        source = b.call(aten.to.dtype, source, target.dtype)
    if value.device != target.device:
        source = b.call(aten.to.device, source, target.device, target.dtype)
    if site.squeezed:
        while value.dim() < target.dim() - 1:
            source, value = b.call(aten.unsqueeze.default, source, 0), value.unsqueeze(0)
        source = b.call(aten.unsqueeze.default, source, site.dim)
    wanted = [number(site.rows) if d == site.dim else s for d, s in enumerate(target.shape)]
    if site.squeezed or [to_expr(s) for s in value.shape] != [to_expr(s) for s in wanted]:
        sizes = [b.number(site.rows) if d == site.dim else b.size(site.base, d) for d in range(target.dim())]
        source = b.call(aten.expand.default, source, sizes)
    b.replace(writer, _write(site, slots, source, b))
    b.drop(writer)


def _write(site: SliceSite, slots: fx.Node, rows: fx.Node, b: Builder) -> fx.Node:
    """Write ``rows`` at ``slots``. These are consecutive, and a guard keeps them within the buffer: the write is marked so.

    AOTAutograd makes the write functional. The result of `index_copy` is contiguous, and so is what is computed from it; that
    of `index_put` lies in memory as the buffer does.
    """
    value = site.base.meta["val"]
    is_put = bits.is_put(value.dtype)
    base, rows = (site.base, rows) if is_put else (b.bits(n, value.dtype) for n in (site.base, rows))
    if is_put or not is_contiguous(value):
        written = b.call(aten.index_put_.default, base, [None] * site.dim + [slots], rows)
    else:
        written = b.call(aten.index_copy_.default, base, site.dim, slots, rows)
    b.marks.in_bounds.add(written)
    return written if is_put else b.back(written, value.dtype)


def _unsqueezed(site: SliceSite, rows: fx.Node, b: Builder) -> fx.Node:
    return b.call(aten.unsqueeze.default, rows, site.dim) if site.squeezed else rows
