"""Attention of one query writes its key and value to the cache itself, and computes all three from what a product has stored.

    q, k = rotate(p.sum(0)..), ..
    write_rows(ks, 2, slots, k)                     ->     o = write_and_attend([p, cos, sin], text of q, of k, of v,
    write_rows(vs, 2, slots, v)                                                 slots, ks, vs, n, ..)
    o = decode_attention(q, ks, vs, n, ..)

The three are computed by views and pointwise ops, from results of products and from tensors that depend on no product, such as
angles (see `element_functions`). One kernel takes the place of two, and nothing is stored between them. The kernel uses the new
row as it has computed it. It does not read the row from the cache, where another program may be writing it.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of
from fxpass.kernels.functions.element_functions import Elements, is_same
from fxpass.kernels.launches.limits import FLOATS, MAX_LEAVES, addressed
from fxpass.kernels.launches.memory_writes import MemoryWrites

aten = torch.ops.aten

AT = ("i0", "i1", "i2", "i3")
"""What the place of an element of the queries, keys and values is called: batch row, head, row, dim."""


class Row(NamedTuple):
    """``write`` stores ``source`` in a cache of which dim ``dims[i]`` is dim i of the keys or values that are read."""

    write: fx.Node
    source: fx.Node
    dims: Sequence[int]


def use_own_rows(graph: fx.Graph, writing: MemoryWrites) -> None:
    """Join attention in ``graph`` (propagated, on CUDA, products replaced) with the writes before it, where both are alike."""
    if not any(getattr(n.target, "namespace", "") == "kvfix" for n in graph.nodes):
        return
    # These register the ops, and need triton.
    from fxpass.kernels.products import linear  # noqa: F401
    from fxpass.kernels.writes import write_rows  # noqa: F401

    from . import few_queries  # noqa: F401

    computed = _computed_of_products(graph)
    for node in graph.find_nodes(op="call_function", target=torch.ops.kvfix.decode_attention.default):
        _join(graph, node, writing, computed)


def _join(graph: fx.Graph, node: fx.Node, writing: MemoryWrites, computed: set[fx.Node]) -> None:
    q, keys, values, *others = node.args
    assert isinstance(q, fx.Node) and isinstance(keys, fx.Node) and isinstance(values, fx.Node)
    if q.meta["val"].shape[2] != 1 or (rows := _rows_before(node, (keys, values), writing)) is None:
        return
    elements = Elements(computed.__contains__, writing)
    texts = [elements.function(q, AT)]
    for row in rows:
        place = dict(zip(row.dims, (*AT[:2], "0", AT[3]), strict=True))
        texts.append(elements.function(row.source, tuple(place[d] for d in range(4))))
    if not all(_may_load(leaf, node, writing, computed) for leaf in elements.leaves) or len(elements.leaves) > MAX_LEAVES:
        return
    if any(writing.anywhere(aliases.storage(n)) for n in elements.inside):
        return
    writes = [row.write for row in rows]
    early = all(writing.only_by(writes, n) for n in (keys, values))
    heads, slots = q.meta["val"].shape[1], rows[0].write.args[2]
    op = torch.ops.kvfix.write_and_attend.default
    with graph.inserting_before(node), faking(mode_of([q.meta["val"]])):
        new = call(graph, op, elements.leaves, *texts, heads, slots, keys, values, *others, early=early)
    new.meta = {**node.meta, **new.meta}
    node.replace_all_uses_with(new)
    for old in (node, *writes):
        graph.erase_node(old)


def _computed_of_products(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on the result of a product, without the product itself."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if any(n in found or _is_product(n) for n in node.all_input_nodes) and not _is_product(node):
            found.add(node)
    return found


def _is_product(node: fx.Node) -> bool:
    made = node.args[0] if node.target is operator.getitem else node
    ops = torch.ops.kvfix
    products = (aten.linear.default, ops.linear_few_rows.default, ops.linears_few_rows.default)
    return isinstance(made, fx.Node) and made.target in products


def _may_load(leaf: fx.Node, node: fx.Node, writing: MemoryWrites, computed: set[fx.Node]) -> bool:
    """Whether the kernel in the place of ``node`` can load ``leaf``, which does not depend on what the kernel computes."""
    value = leaf.meta["val"]
    if leaf in computed or not isinstance(value, torch.Tensor) or value.dtype not in FLOATS:
        return False
    if not addressed(value) or not value.is_contiguous():
        return False
    return not writing.between(leaf, node, aliases.storage(leaf))


def _rows_before(node: fx.Node, caches: Sequence[fx.Node], writing: MemoryWrites) -> list[Row] | None:
    """What is written to each of ``caches``, a single row in the same slot, if nothing touches them from there to ``node``.

    Two caches in one memory are left as they are: where an op writes to two arguments in one memory, Inductor gives it a copy
    of one of them, and torch 2.11 writes that copy back to another place.
    """
    wanted = {aliases.storage(c) for c in caches}
    if len(wanted) < len(caches):
        return None
    found: dict[fx.Node, Row] = {}
    before = node.prev
    while len(found) < 2 and before.op == "call_function":
        is_view = aliases.base(before) is not None and not aliases.written(before)
        if not is_view and wanted & {aliases.storage(n) for n in before.all_input_nodes}:
            cache = next((c for c in caches if c not in found and (row := _row(before, c)) is not None), None)
            if cache is None or row is None:
                return None
            found[cache] = row
        before = before.prev
    if len(found) < 2:
        return None
    first, second = (found[c] for c in caches)
    return [first, second] if is_same(first.write.args[2], second.write.args[2], writing) else None


def _row(node: fx.Node, cache: fx.Node) -> Row | None:
    """What ``node`` stores in ``cache`` (batch, heads, size, dim), if that is one row for each head."""
    if node.target is not torch.ops.kvfix.write_rows.default:
        return None
    buffer, dim, _, source = node.args
    assert isinstance(buffer, fx.Node) and isinstance(source, fx.Node)
    into, read = buffer.meta["val"], cache.meta["val"]
    if aliases.storage(buffer) != aliases.storage(cache) or into.dim() != 4 or source.meta["val"].shape[dim] != 1:
        return None
    for dims in itertools.permutations(range(4)):
        if dims[2] == dim and _layout(into.permute(dims)) == _layout(read):
            return Row(node, source, dims)
    return None


def _layout(tensor: torch.Tensor) -> list[str]:
    """Where the elements of ``tensor`` lie, as text: to compare symbols adds no guard."""
    return [str(n) for n in (*tensor.shape, *tensor.stride(), tensor.storage_offset())]


