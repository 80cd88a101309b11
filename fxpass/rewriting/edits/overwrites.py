"""Where a graph writes rows by index, and later writes the buffer in another way or reads as few rows, a mask puts the rows in.

    index_copy_(buf, 1, slots, k)               place = arange(S) - slots[0]
    ...                                         new = index_select(k, 1, clamp(place, 0, n - 1))
    copy_(buf, flip(buf, 1))          ->        copy_(buf, where(0 <= place < n, new, buf))
                                                ...
                                                copy_(buf, flip(buf, 1))

Inductor writes indexed rows in place. It also makes the last write to a buffer in place. It may fuse a read that stands between
two such writes with the second one, which then overwrites rows that are still to be read (pytorch#198270). A masked write, like
the slice that the model has, is a value until the end of the graph, so that only one write is in place. A masked write costs a
pass over the buffer. The other write usually costs one, too.

Rows are also masked where as many elements are read as are written, ``k[:, s:e] = x`` and then ``k[:, :n]``. In one kernel with
the write, torch 2.11 reads several elements before it writes the first of them.

All this is for slices that kvfix has made into writes by index: their rows lie one after the other, which a mask can say. Rows
that the model itself writes by index may lie anywhere, or be added up. These go through a copy
(`execute.compilation.overwritten`).

Rows that go in through a view of another dtype, ``buf.view(torch.int16)[:, s:e] = k``, are masked as well: Inductor would store
them as numbers of the dtype that the buffer has.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases, insertion
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.marks import Marks, given_to
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import equal, to_expr
from fxpass.graph.values import is_tensor
from fxpass.rewriting.nodes import bits

aten = torch.ops.aten


def mask_overwritten_rows(graph: fx.Graph, marks: Marks) -> bool:
    """Put rows in by a mask where ``graph`` (propagated) writes their buffer in another way later, or reads as few rows of it,
    or where the buffer is a view of another dtype. Gives whether there are such rows.

    New nodes get a ``meta["val"]``. All others keep theirs, since the layout of a buffer stays the same.
    """
    overwritten: set[int | None] = set()
    read: set[tuple[int | None, Any]] = set()
    found = []
    for node in reversed(graph.nodes):
        if node in marks.in_bounds:
            buffer, _, _, rows = given_to(node)
            memory = aliases.storage(buffer)
            mistaken = memory in overwritten or (memory, _size(rows)) in read or _holds_others(buffer)
            if mistaken and not equal(_rows(node), 0):
                found.append(node)
        else:
            overwritten |= {aliases.storage(w) for w in aliases.written(node)}
            read |= {(aliases.storage(n), _size(node)) for n in node.all_input_nodes[:1] if _may_be_fused(node)}
    inputs = [n.meta["val"] for n in graph.find_nodes(op="placeholder")]
    with faking(mode_of(inputs)):
        for node in found:
            _mask(graph, node)
            marks.in_bounds.remove(node)
    return bool(found)


def _holds_others(buffer: fx.Node) -> bool:
    """Whether ``buffer`` is a view of numbers of another kind, of which Inductor stores the numbers and not the bits."""
    dtype = buffer.meta["val"].dtype
    base: fx.Node | None = buffer
    while base is not None:
        other = getattr(base.meta["val"], "dtype", dtype)  # several tensors have none
        if other is not dtype and (other.is_floating_point or dtype.is_floating_point) and not other.is_complex:
            return True
        base = aliases.base(base)
    return False


def _may_be_fused(node: fx.Node) -> bool:
    """Whether Inductor may compute ``node``, a tensor, in a kernel with a write."""
    return node.op == "call_function" and is_tensor(node) and not is_heavy(node)


def _size(node: fx.Node) -> Any:
    """How many elements ``node`` has, as an expression."""
    return to_expr(node.meta["val"].numel())


def _rows(write: fx.Node) -> Any:
    """How many rows ``write`` writes, an int or a SymInt. A slice may be empty, at the end of the buffer for one."""
    return given_to(write)[2].meta["val"].shape[0]


def _mask(graph: fx.Graph, write: fx.Node) -> None:
    """Replace ``write``, of rows that lie one after the other."""
    buffer, dim, slots, rows = given_to(write)
    value, kind = buffer.meta["val"], bits.moved_as(buffer.meta["val"].dtype)

    def call(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        made = insertion.call(graph, target, *args, **kwargs)
        insertion.take_line(made, write)
        return made

    with graph.inserting_before(write):
        size = insertion.size_argument(call, buffer, dim)
        last = insertion.arithmetic(call, operator.sub, insertion.size_argument(call, slots, 0), 1)
        first = call(aten.slice.Tensor, slots, 0, 0, 1)
        place = call(aten.sub.Tensor, call(aten.arange.default, size, device=value.device), first)
        inside = call(aten.logical_and.default, call(aten.ge.Scalar, place, 0), call(aten.le.Scalar, place, last))
        for _ in range(value.dim() - 1 - dim):
            inside = call(aten.unsqueeze.default, inside, -1)
        new, old = (x if kind is value.dtype else call(aten.view.dtype, x, kind) for x in (rows, buffer))
        spread = call(aten.index_select.default, new, dim, call(aten.clamp.default, place, 0, last))
        whole = call(aten.where.self, inside, spread, old)
        whole = whole if kind is value.dtype else call(aten.view.dtype, whole, value.dtype)
        written = call(aten.copy_.default, buffer, whole)
    write.replace_all_uses_with(written)
    graph.erase_node(write)
