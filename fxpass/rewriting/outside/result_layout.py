"""Results keep their layout in memory.

    k: f32[2, 8, 4], strides (32, 1, 8)           a cache that is stored with its rows last
    y = mul(k[:, s:s + 3], 2)                     f32[2, 3, 4], strides (12, 1, 3): as its operand lies
    y = mul(index_select(k, 1, rows), 2)          strides (12, 4, 1)          ->      clone, with strides (12, 1, 3)

An op that a rewrite puts in may lay out its result in another way, which the caller could tell: ``y.view(-1)`` works for one
layout alone. A result of which the caller gets a view too, or that is not dense, is left as it is.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call, take_line
from fxpass.graph.layouts import dense_order
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import equal
from fxpass.torch_internals.operators import tree_leaves

aten = torch.ops.aten


def lay_out_results(graph: fx.Graph, before: Sequence[Any], cut: Collection[int]) -> None:
    """Copy the results of ``graph`` (propagated) whose layout is not that of the fake values ``before``.

    Those at the places ``cut`` are cut outside, and copied there.
    """
    output, inputs = graph.output_node(), graph.find_nodes(op="placeholder")
    memories = collections.Counter(aliases.storage(n) for n in {*output.all_input_nodes, *inputs})
    places = {result: i for i, result in enumerate(tree_leaves(output.args)) if isinstance(result, fx.Node)}
    with faking(mode_of([n.meta["val"] for n in inputs])), graph.inserting_before(output):
        for result, place in places.items():
            order, is_alone = dense_order(before[place]), memories[aliases.storage(result)] == 1
            if order is None or place in cut or not is_alone or _lies_as(result, before[place]):
                continue
            rows = call(graph, aten.permute.default, result, order)
            dense = call(graph, aten.clone.default, rows, memory_format=torch.contiguous_format)
            made = call(graph, aten.permute.default, dense, undone(order))
            for node in (rows, dense, made):
                take_line(node, result)
            output.replace_input_with(result, made)


def undone(order: Sequence[int]) -> list[int]:
    """The order of dims that undoes a permutation by ``order``."""
    return [order.index(d) for d in range(len(order))]


def _lies_as(result: fx.Node, old: torch.Tensor) -> bool:
    strides = zip(result.meta["val"].stride(), old.stride(), old.shape, strict=True)
    return all(equal(a, b) or equal(size, 1) for a, b, size in strides)
