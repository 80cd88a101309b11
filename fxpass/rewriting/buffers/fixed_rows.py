"""A fixed number of rows of a tensor that grows is copied: the strides of the rows grow with it, and those of a copy do not.

    series: f32[2, s0, 8]
    last = series[:, -1:]        f32[2, 1, 8], strides (8 * s0, 8, 1)        ->        last = clone(series[:, -1:])
    y = linear(last, w)          needs a symbol                              ->        in the static core

Rows are left as they are where their memory is written later on or given to the caller, since a copy would not show that, and
where they have many elements.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import take_line
from fxpass.graph.numbers import hint, symbols
from fxpass.graph.values import is_tensor

aten = torch.ops.aten

MOST_ELEMENTS = 2**20
"""Rows with more elements are not copied."""


def copy_fixed_rows(graph: fx.Graph, bound: Set[Any]) -> bool:
    """Copy such views in ``graph`` (propagated), where the symbols in ``bound`` do not move. Gives whether there are any.

    The copies have no ``meta["val"]`` yet.
    """
    kept = {m for n in graph.output_node().all_input_nodes for m in aliases.storages(n)}
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if _is_view(node) and aliases.storage(node) not in kept and _is_fixed(node, bound):
            found.add(node)
        kept |= {m for w in aliases.written(node) for m in aliases.storages(w)}
    for node in [node for node in found if aliases.base(node) not in found]:
        with graph.inserting_after(node):
            copy = graph.call_function(aten.clone.default, (node,), {"memory_format": torch.contiguous_format})
        take_line(copy, node)
        node.replace_all_uses_with(copy, lambda user, copy=copy: user is not copy)
    return bool(found)


def _is_view(node: fx.Node) -> bool:
    return is_tensor(node) and aliases.base(node) is not None


def _is_fixed(view: fx.Node, bound: Set[Any]) -> bool:
    """Whether the sizes of ``view`` are fixed and few, and a stride is not."""
    value = view.meta["val"]
    if any(symbols(size) - bound for size in value.shape) or not symbols(value) - bound:
        return False
    return math.prod(hint(size) or 0 for size in value.shape) <= MOST_ELEMENTS
