"""Pointwise ops on the outputs of one or two linear layers go into the kernel that computes the outputs.

    g, u = linear(x, w).chunk(2, -1)               ->     y = kvfix.gated_few_rows(x, [w[:n], w[n:]], [], text, True)
    y = silu(g) * u

    y = silu(linear(x, w)) * linear(x, v)          ->     y = kvfix.gated_few_rows(x, [w, v], [], text, True)
    y = relu(linear(x, w, b))                      ->     y = kvfix.gated_few_rows(x, [w], [b], text, True)

``text`` is the source of the function that the ops compute (`pointwise`). A kernel cannot apply a function to sums that are cut
into parts. Where parts are faster (`tiles`), the ops stay outside. On an H100, parts are faster for seven rows of float32, 768
columns and 6,144 outputs: with uncut sums and the function in the kernel, twelve such layers take 15 microseconds longer.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of
from fxpass.kernels.functions.pointwise import NAMES, body, form
from fxpass.kernels.launches.memory_writes import MemoryWrites

aten = torch.ops.aten


class Operand(NamedTuple):
    """Some outputs of a linear layer, from ``start`` on, as ``node`` of the graph."""

    node: fx.Node
    layer: fx.Node
    start: int


class Gate(NamedTuple):
    """The nodes ``inside``, of which the first is the result, and the ``operands`` that they compute it from; some may be
    equal."""

    inside: list[fx.Node]
    operands: list[Operand]

    @property
    def distinct(self) -> list[Operand]:
        """One operand for each of the outputs that are used."""
        return list({(o.layer, o.start): o for o in reversed(self.operands)}.values())[::-1]


def use_gates(graph: fx.Graph, writing: MemoryWrites, fits: Callable[[Sequence[fx.Node], int], bool]) -> None:
    """Replace the ops on linear layers of ``graph`` (propagated, on CUDA) where ``fits(layers, outputs)`` holds: ``outputs`` is
    how many of each layer are used."""
    gone: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        gate = None if node in gone else _gate(node)
        if gate is not None and fits([o.layer for o in gate.distinct], node.meta["val"].shape[-1]) and _may_join(gate, writing):
            gone |= _replace(graph, gate, writing)


def _gate(result: fx.Node) -> Gate | None:
    """All ops from linear layers to ``result``; None if one of them has other users, or is no pointwise op."""
    inside: dict[fx.Node, None] = {}
    operands: dict[fx.Node, Operand] = {}
    todo = [result]
    while todo:
        node = todo.pop()
        if node in inside or node in operands:
            continue
        if (operand := _operand(node)) is not None:
            operands[node] = operand
        elif form(node) is not None and _is_alike(node, result):
            inside[node] = None
            todo += reversed(node.all_input_nodes)
        else:
            return None
    own = {*inside, *operands, *(n for o in operands.values() for n in _between(o))}
    if any(user not in own for node in own - {result} for user in node.users):
        return None
    gate = Gate(list(inside), list(operands.values()))
    return gate if inside and 0 < len(gate.distinct) <= len(NAMES) and _are_layers(gate.operands, result) else None


def _is_alike(node: fx.Node, result: fx.Node) -> bool:
    value, like = node.meta.get("val"), result.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.shape == like.shape


def _operand(node: fx.Node) -> Operand | None:
    """``node`` as outputs of a linear layer: all of them, or a part of them cut out along the last dim."""
    if node.target is aten.linear.default:
        return Operand(node, node, 0)
    cut = node.args[0] if node.target is operator.getitem else node
    if not isinstance(cut, fx.Node) or cut.target not in _CUTS or not isinstance(layer := cut.args[0], fx.Node):
        return None
    if layer.target is not aten.linear.default:
        return None
    dims, width = layer.meta["val"].dim(), layer.meta["val"].shape[-1]
    if cut.target is aten.slice.Tensor:
        dim, start = ((*cut.args[1:], 0, 0) if len(cut.args) < 3 else cut.args[1:])[:2]
        if not isinstance(start, int) or cut.args[4:] not in ((), (1,)) or cut.kwargs:
            return None
        start = min(max(start + width if start < 0 else start, 0), width)
    else:
        dim = cut.args[2] if len(cut.args) > 2 else 0
        start = sum(v.shape[-1] for v in cut.meta["val"][: node.args[1]]) if isinstance(node.args[1], int) else None
        if start is None or cut.kwargs:
            return None
    return Operand(node, layer, start) if dim in (-1, dims - 1) else None  # type: ignore[arg-type]


_CUTS = {aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor}


def _between(operand: Operand) -> list[fx.Node]:
    """The layer of ``operand`` and what cuts it up."""
    found = [operand.layer]
    if operand.node.target is operator.getitem:
        found.append(operand.node.args[0])  # type: ignore[arg-type]
    return found


def _are_layers(operands: Sequence[Operand], result: fx.Node) -> bool:
    """Whether ``operands`` are as many outputs each as ``result`` has, of the same rows, and of its dtype."""
    first, value = operands[0].layer, result.meta["val"]
    for operand in operands:
        layer = operand.layer
        if layer.args[0] is not first.args[0] or (_bias(layer) is None) != (_bias(first) is None):
            return False
        if layer.meta["val"].dtype != value.dtype or operand.node.meta["val"].shape != value.shape:
            return False
    return True


def _bias(layer: fx.Node) -> Any:
    return layer.args[2] if len(layer.args) > 2 else None


def _may_join(gate: Gate, writing: MemoryWrites) -> bool:
    """Whether the result could as well be computed where the first of its layers is. If there is one layer, it must be the only
    one of its rows. Otherwise it had better be one launch with the others (`products`)."""
    first, last = min(o.layer for o in gate.operands), max(o.layer for o in gate.operands)
    if len(gate.distinct) == 1:
        return sum(u.target is aten.linear.default for u in first.all_input_nodes[0].users) == 1
    if first is last:
        return True
    x, *parameters = last.all_input_nodes
    given = all(p.op in ("placeholder", "get_attr") for p in parameters)
    return given and not any(writing.between(first, last, aliases.storage(n)) for n in (x, *parameters))


def _replace(graph: fx.Graph, gate: Gate, writing: MemoryWrites) -> set[fx.Node]:
    """Let the kernel compute ``gate``. Gives the nodes that are gone."""
    result, operands = gate.inside[0], gate.distinct
    layers, names = [o.layer for o in operands], {(o.layer, o.start): name for o, name in zip(operands, NAMES, strict=False)}
    text = body(result, {o.node: names[o.layer, o.start] for o in gate.operands})
    width = result.meta["val"].shape[-1]
    parameters = [n for layer in layers for n in layer.args[1:] if n is not None]
    early = all(writing.stays(n) for n in parameters)  # type: ignore[arg-type]
    with graph.inserting_before(min(layers)), faking(mode_of([result.meta["val"]])):

        def cut(parameter: Any, start: int) -> fx.Node:
            whole = parameter.meta["val"].shape[0] == width
            return parameter if whole else call(graph, aten.slice.Tensor, parameter, 0, start, start + width)

        weights = [cut(o.layer.args[1], o.start) for o in operands]
        biases = [cut(_bias(o.layer), o.start) for o in operands if _bias(o.layer) is not None]
        new = call(graph, torch.ops.kvfix.gated_few_rows.default, layers[0].args[0], weights, biases, text, early)
    new.meta = {**result.meta, **new.meta}
    result.replace_all_uses_with(new)
    own = {*gate.inside, *(n for o in gate.operands for n in (o.node, *_between(o)))}
    for node in sorted(own, reverse=True):
        graph.erase_node(node)
    return own
