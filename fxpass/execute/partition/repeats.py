"""Layers that repeat are compiled once.

The graph of a model of twelve equal layers holds the same ops twelve times, on other weights. It becomes one piece that is
called twelve times, with a head before it and a tail after it:

    x = embed(x)                                        head
    x = layer(x, w0, keys[0], values[0])                piece, compiled once
    x = layer(x, w1, keys[1], values[1])                the same piece, other inputs
    y = unembed(x)                                      tail

Views with other constant bounds in each layer (``keys[1]``) are taken outside of the pieces. Nothing is fused across a seam, so
the seam is put behind a product, where little would be. The capacity of what grows may be a symbol, see `sizes`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.extract import extract, results
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.numbers import hint
from fxpass.graph.propagate import value_of
from fxpass.graph.values import is_tensor, values_of

from .hoist import hoist
from .sizes import operands_and_sizes, read_from_inputs

aten = torch.ops.aten
_VIEWS = {aten.select.int, aten.slice.Tensor, aten.view.default, aten.unsqueeze.default, aten.squeeze.dim}
LEAST = 3
"""A piece that would be called fewer times is not made."""


@dataclasses.dataclass
class Piece:
    """Some ops of a graph as a module of their own."""

    gm: fx.GraphModule
    examples: list[fx.Node]
    """Nodes of the whole graph to compile it for: of what it takes in its calls, the least aligned."""


@dataclasses.dataclass
class Call:
    """A call of ``piece``, with the nodes of the whole graph that it takes and gives. Without a piece, one op as it is."""

    piece: Piece | None
    takes: list[fx.Node]
    gives: list[fx.Node]


def piece_calls(gm: fx.GraphModule) -> list[Call]:
    """``gm`` (propagated, and static but for numbers among its inputs) as calls of pieces, in order. Before that, ops that do
    not depend on the layers are hoisted.

    No calls where nothing repeats, or where there are subgraphs.
    """
    if any(not isinstance(value_of(gm, n), torch.Tensor) for n in gm.graph.find_nodes(op="get_attr")):
        return []
    read_from_inputs(gm.graph)
    hoist(gm.graph)
    views = _merged_views(gm.graph)
    nodes = [n for n in gm.graph.nodes if n.op == "call_function" and n not in views]
    found = _best(nodes)
    if found is None:
        return []
    start, period, times = found
    end = start + times * period
    layers = _layers([nodes[at : at + period] for at in range(start, end, period)])
    if not _are_one_piece(layers):
        return []
    calls = [*map(_as_it_is, views), *_call(gm, nodes[:start])]
    return calls + _calls_of_layers(gm, layers) + _call(gm, nodes[end:])


@dataclasses.dataclass
class _Layer:
    """One of the stretches of ops that repeat.

    ops: those that are the same in all of them.
    views: those with other constant bounds in each.
    takes: the operands of ``ops``, and numbers in their sizes.
    """

    ops: list[fx.Node]
    views: list[fx.Node]
    takes: list[fx.Node]


def _layers(stretches: Sequence[Sequence[fx.Node]]) -> list[_Layer]:
    odd = {i for i, same in enumerate(zip(*stretches, strict=True)) if len({_literals(n) for n in same}) > 1}
    found = []
    for stretch in stretches:
        ops = [n for i, n in enumerate(stretch) if i not in odd]
        found.append(_Layer(ops, [n for i, n in enumerate(stretch) if i in odd], operands_and_sizes(ops)))
    return found


def _are_one_piece(layers: Sequence[_Layer]) -> bool:
    """Whether all layers are calls of one piece, whose views can be taken before it."""
    if any(i in set(layer.ops) for layer in layers for view in layer.views for i in view.all_input_nodes):
        return False
    takes = [layer.takes for layer in layers]
    return _correspond([layer.ops for layer in layers], takes) and not any(_aliased(layer.ops, layer.takes) for layer in layers)


def _calls_of_layers(gm: fx.GraphModule, layers: Sequence[_Layer]) -> list[Call]:
    """A call of one piece for each layer, after its views."""
    used = sorted({i for each in layers for i, n in enumerate(each.ops) if any(u not in set(each.ops) for u in n.users)})
    examples = [max(given, key=_misaligned) for given in zip(*(layer.takes for layer in layers), strict=True)]
    first = layers[0]
    piece = Piece(extract(gm, first.ops, first.takes, [first.ops[i] for i in used], "layer"), examples)
    calls = []
    for layer in layers:
        calls += [*map(_as_it_is, layer.views), Call(piece, layer.takes, [layer.ops[i] for i in used])]
    return calls


def _call(gm: fx.GraphModule, nodes: Sequence[fx.Node]) -> list[Call]:
    if not nodes:
        return []
    takes, gives = operands_and_sizes(nodes), results(nodes)
    return [Call(Piece(extract(gm, nodes, takes, gives, "piece"), takes), takes, gives)]


def _as_it_is(node: fx.Node) -> Call:
    return Call(None, list(node.all_input_nodes), [node])


def _merged_views(graph: fx.Graph) -> list[fx.Node]:
    """Merge equal views. Gives the views of graph inputs, in order: they can be taken before everything else."""
    known: dict[Any, fx.Node] = {}
    views: dict[fx.Node, None] = {}
    for node in list(graph.nodes):
        if node.target not in _VIEWS or len(node.all_input_nodes) != 1:
            continue
        (source,) = node.all_input_nodes
        first = known.setdefault((node.target, source, _literals(node)), node)
        if first is not node and graph.output_node() not in node.users:  # two results are two tensors, on one memory
            node.replace_all_uses_with(first)
            graph.erase_node(node)
        elif source.op == "placeholder" or source in views:
            views[node] = None
    return list(views)


def _best(nodes: Sequence[fx.Node]) -> tuple[int, int, int] | None:
    """(start, period, times) of the run of equal stretches that saves most ops, among those that can end with a heavy op."""
    kinds = [_kind(n) for n in nodes]
    last: dict[Any, int] = {}
    distances: Counter[int] = Counter()
    for i, kind in enumerate(kinds):
        if kind in last:
            distances[i - last[kind]] += 1
        last[kind] = i
    best, gain = None, 0
    for period, _ in distances.most_common(8):
        equal = [a == b for a, b in zip(kinds[:-period], kinds[period:], strict=True)]
        edges = [-1, *(i for i, e in enumerate(equal) if not e), len(equal)]
        start, length = max(((a + 1, b - a - 1) for a, b in pairwise(edges)), key=lambda run: run[1])
        times = length // period + 1
        if times >= LEAST and (times - 1) * period > gain:
            spare = length % period
            seams = [s for s in range(start, start + spare + 1) if _is_seam(nodes[s + period - 1])]
            if not seams and times > LEAST:  # one layer fewer, and all places for the seam
                times -= 1
                seams = [s for s in range(start, start + period) if _is_seam(nodes[s + period - 1])]
            if seams:
                best, gain = (seams[0], period, times), (times - 1) * period
    return best


def _is_seam(node: fx.Node) -> bool:
    """Whether a piece may end with ``node``: a product, and a tensor."""
    return is_heavy(node) and is_tensor(node)


def _kind(node: fx.Node) -> Any:
    """What is equal for two ops that are the same op on other operands. A view may have other bounds (``keys[1]``)."""
    return node.target, None if node.target in _VIEWS else _literals(node), _type(node)


def _literals(node: fx.Node) -> str:
    """The arguments of ``node``, nodes left out."""
    return str(fx.node.map_arg((node.args, node.kwargs), lambda n: None))


def _type(node: fx.Node) -> str:
    values = values_of(node)
    return str([(v.dtype, tuple(v.shape), v.stride(), v.device) if isinstance(v, torch.Tensor) else v for v in values])


def _correspond(layers: Sequence[list[fx.Node]], takes: Sequence[list[fx.Node]]) -> bool:
    """Whether all layers do the same with what they take and with their own values."""
    first = {n: i for i, n in enumerate((*takes[0], *layers[0]))}
    for layer, taken in zip(layers, takes, strict=True):
        here = {n: i for i, n in enumerate((*taken, *layer))}
        if len(taken) != len(takes[0]) or any(_type(a) != _type(b) for a, b in zip(taken, takes[0], strict=True)):
            return False
        for a, b in zip(layers[0], layer, strict=True):
            if [first[n] for n in _every(a)] != [here[n] for n in _every(b)]:
                return False
    return True


def _every(node: fx.Node) -> list[fx.Node]:
    """All operands of ``node``; one that is taken twice is listed twice."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _misaligned(node: fx.Node) -> int:
    value = node.meta.get("val")
    return hint(value.storage_offset()) * value.itemsize % 16 if isinstance(value, torch.Tensor) else 0


def _aliased(nodes: Sequence[fx.Node], takes: Sequence[fx.Node]) -> bool:
    """Whether ``nodes`` write to memory that they take through two operands: these may not share it in another layer."""
    memories = Counter(aliases.storage(n) for n in takes)
    return any(memories[aliases.storage(w)] > 1 for n in nodes for w in aliases.written(n))
