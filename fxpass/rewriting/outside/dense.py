"""Results that are cut outside of a recording leave it in one flat tensor, with what is valid in front: one copy serves all.

    return loc, scale           [2, C], of which [:, :n] is cut and copied, twice
                          ->    flat = stack([loc, scale]).reshape([-1])
                                dense = index_select(flat, 0, i // n * C + i % n)         return dense, dense

In the copy of ``dense``, the first 2 * n elements are ``loc``, and the next 2 * n are ``scale``.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import to_expr

from .around import Around, Dense
from .formulas import Formula, Size

aten = torch.ops.aten


def dense_results(gm: fx.GraphModule, around: Around) -> Around:
    """Put the results of ``gm`` together that are cut along one dim, with all other sizes fixed.

    Gives ``around`` with a `Dense` for each of them.
    """
    graph, output = gm.graph, gm.graph.output_node()
    inputs = graph.find_nodes(op="placeholder")
    returned: list[Any] = list(output.args[0])  # type: ignore[arg-type]
    alike: defaultdict[Any, list[int]] = defaultdict(list)
    for place, cuts in around.cuts.items():
        value = returned[place].meta["val"]
        (dim, length), *more = cuts
        is_fixed = all(isinstance(size, int) for d, size in enumerate(value.shape) if d != dim)
        if is_fixed and not more and place not in around.orders:
            alike[value.dtype, tuple(map(to_expr, value.shape)), dim, length].append(place)
    found: dict[int, Dense] = {}
    with faking(mode_of([n.meta["val"] for n in inputs])):
        for (_, shape, dim, length), places in alike.items():
            nodes = [returned[i] for i in places]
            with graph.inserting_before(_last(graph, nodes).next):
                made = _packed(nodes, dim, _node(graph, length, inputs))
            for number, place in enumerate(places):
                returned[place], found[place] = made, Dense(number, shape[:dim], shape[dim + 1 :])
    output.args = (tuple(returned),)
    gm.recompile()
    return dataclasses.replace(around, dense=found)


def _last(graph: fx.Graph, nodes: Sequence[fx.Node]) -> fx.Node:
    """The last op that makes one of ``nodes`` or writes to its memory. Right after it, they are still in a GPU's cache."""
    memories = {aliases.storage(n) for n in nodes}
    writers = (n for n in graph.nodes if memories & {aliases.storage(w) for w in aliases.written(n)})
    inputs = graph.find_nodes(op="placeholder")
    return max(*nodes, *writers, *inputs)


def _packed(nodes: Sequence[fx.Node], dim: int, length: Any) -> fx.Node:
    """The first ``length`` rows of ``nodes`` along ``dim``, one after the other, in front of anything."""
    first = nodes[0]
    graph, value = first.graph, first.meta["val"]
    rows, inner = len(nodes) * math.prod(value.shape[:dim]), math.prod(value.shape[dim + 1 :])
    whole = first if len(nodes) == 1 else call(graph, aten.stack.default, list(nodes))
    flat = call(graph, aten.reshape.default, whole, [-1])
    size = call(graph, aten.sym_size.int, flat, 0)
    full = call(graph, operator.mul, call(graph, aten.sym_size.int, first, dim), inner)
    kind = {"dtype": _dtype_for(flat.meta["val"].shape[0]), "device": value.device}
    number = call(graph, aten.full.default, [], length, **kind)
    block = call(graph, aten.clamp_min.default, call(graph, aten.mul.Tensor, number, inner), 1)
    steps = call(graph, aten.arange.default, size, **kind)
    row = call(graph, aten.div.Tensor_mode, steps, block, rounding_mode="trunc")
    row = call(graph, aten.clamp_max.default, row, rows - 1)  # past what is valid, ``row * full`` could be more than an int32
    within = call(graph, aten.sub.Tensor, steps, call(graph, aten.mul.Tensor, row, block))
    places = call(graph, aten.add.Tensor, call(graph, aten.mul.Tensor, row, full), within)
    last = call(graph, operator.sub, size, 1)
    return call(graph, aten.index_select.default, flat, 0, call(graph, aten.clamp_max.default, places, last))


def _dtype_for(size: Any) -> torch.dtype:
    """The dtype that holds twice the places of ``size`` elements. A GPU divides int32 several times as fast as int64."""
    return torch.int32 if isinstance(size, int) and size < 2**30 else torch.int64


def _node(graph: fx.Graph, value: Any, inputs: Sequence[fx.Node]) -> Any:
    """The number ``value``, a `formula` over ``inputs``, as an argument."""
    if isinstance(value, Size):
        given = inputs[value.place]
        return given if value.dim is None else call(graph, aten.sym_size.int, given, value.dim)
    if isinstance(value, Formula):
        return call(graph, value.fn, *(_node(graph, arg, inputs) for arg in value.args))
    return value
