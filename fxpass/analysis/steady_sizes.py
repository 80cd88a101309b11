"""Which symbols stay from step to step, as the graph shows, whatever has been seen of them so far.

    k: [2, s1, 8]      k.index_copy_(1, at, x); k[:, :end]       s1: a cache that is written keeps its size
    mask: [1, s2]      mask[:, :end]                             s2: it goes with a cache's size, by a guard
    x: [2, s3, 8]      k[:, s:s + s3] = x                        s3: the rows of a chunk, as many as the caller gives

A position is not among them. In the graph of the step that fills a cache, a guard may have replaced the length of the cache by
``s0 + 1``. All sizes of that cache then move with the position, and ops that use it are left as they are.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.bounds import sliced_axis
from fxpass.graph.numbers import equal, fixed, guarded, hint, input_sizes, symbols, to_expr
from fxpass.graph.values import is_tensor

from .positions import Positions

aten = torch.ops.aten


def shown_steady(graph: fx.Graph, positions: Positions) -> set[Any]:
    """The symbols of ``graph`` that its slices at positions show to be steady."""
    written = {aliases.root(w) for n in graph.nodes for w in aliases.written(n)}
    inputs = {s for *_, size in input_sizes(graph) for s in symbols(size)} - positions.symbols
    found: set[Any] = set()
    read: dict[Any, Any] = {}
    kept: dict[Any, Any] = {}
    for node in graph.nodes:
        axis, memory = sliced_axis(node), aliases.root(node)
        if axis is None or not any(i in positions for i in node.all_input_nodes):
            continue
        rows = symbols(node.meta["val"].shape[axis[1]]) if node.target is not aten.select.int else set()
        if rows <= inputs and any(node in aliases.written(u) for u in node.users):
            found |= rows
        if memory.op != "placeholder":
            continue
        size = axis[0].meta["val"].shape[axis[1]]
        if memory in written:
            found |= {s for n in memory.meta["val"].shape for s in symbols(n)}
        (kept if memory in written else read)[to_expr(size)] = size
    found -= positions.symbols
    for size in read.values():
        if any(_goes_with(size, own, positions) for own in kept.values()):
            found |= symbols(size) - positions.symbols
    return found


def _goes_with(size: Any, own: Any, positions: Positions) -> bool:
    """Whether ``size`` equals the size ``own`` of a cache, which becomes a guard: an attention mask is as long as its cache."""
    moves = symbols(own) & positions.symbols
    return bool(not equal(own, size) and symbols(own) and not moves and guarded(own == size))


def settled(graph: fx.Graph, moving: Set[Any]) -> set[Any]:
    """The symbols among ``moving`` of sizes that have grown so far, and no longer do.

        past: [2, s, 8], s is 16 now       return cat([past, new], 1)[:, -16:]       a window that is full
    """
    returned = graph.output_node().all_input_nodes
    found: set[Any] = set()
    for node, dim, size in input_sizes(graph):
        if symbols(size) & moving and any(n in returned and _is_kept(n, node, dim) for n in _rows_of(node)):
            found |= symbols(size)
    return found & moving


def _rows_of(node: fx.Node) -> set[fx.Node]:
    """The tensors computed from rows of ``node``, alone or by a join with others, and those that they are copied to."""
    found = {node}
    for other in node.graph.nodes:
        if found.isdisjoint(other.all_input_nodes):
            continue
        given = [n for n in other.all_input_nodes if is_tensor(n)]
        if len(given) == 1 or other.args and isinstance(other.args[0], (list, tuple)):
            found.add(other)
        if other.target is aten.copy_.default and other.args[1] in found:
            found.add(aliases.root(other))
    return found - {node}


def _is_kept(result: fx.Node, node: fx.Node, dim: int) -> bool:
    """Whether ``result``, on every call, is as long along ``dim`` as ``node`` is now, or longer: it has just been filled."""
    made, given = result.meta["val"], node.meta["val"]
    if made.dim() != given.dim() or fixed(made.shape[dim]) is None:
        return False
    more = [hint(a) - hint(b) for a, b in zip(made.shape, given.shape, strict=True)]
    return more.pop(dim) >= 0 and not any(more)
