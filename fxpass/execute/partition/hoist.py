"""Ops that do not depend on the layers move to the front of the graph, where equal ones are merged.

    layer 0:  c0 = cos(position * f); ...            c = cos(position * f)
    layer 1:  c1 = cos(position * f); ...     ->     layer 0: ... c ...
                                                     layer 1: ... c ...

An op moves only if its result is small, so that no copy of a weight lives longer than before, and if the graph never writes the
memory that it reads. Two ops whose results the caller gets are not merged, since it may write to one of them.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.numbers import hint
from fxpass.graph.values import values_of
from fxpass.torch_internals.operators import OpOverload

MOST = 1 << 16
"""An op whose result has more elements stays where it is."""


def hoist(graph: fx.Graph) -> None:
    """Merge equal small pure ops on inputs of ``graph`` (static, propagated), and move them to its front."""
    written = {aliases.storage(w) for n in graph.nodes for w in aliases.written(n)}
    given = _given(graph)
    early = {n for n in graph.find_nodes(op="placeholder") if aliases.storage(n) not in written}
    known: dict[Any, fx.Node] = {}
    merged: set[fx.Node] = set()
    for node in [n for n in graph.nodes if n.op != "placeholder"]:
        if not _may_move(node) or aliases.storage(node) in written or not all(i in early for i in node.all_input_nodes):
            continue  # two equal buffers that are written stay two
        early.add(node)
        first = known.setdefault((node.op, node.target, str(node.args), str(node.kwargs)), node)
        if first is not node and node not in given:
            node.replace_all_uses_with(first)
            graph.erase_node(node)
            merged.add(first)
    alone = {n for n in early if n.op != "placeholder" and any(is_heavy(u) or u.op == "output" for u in n.users)}
    _move(graph, merged | alone)


def _move(graph: fx.Graph, wanted: set[fx.Node]) -> None:
    """Move ``wanted``, with what they need, to the front.

    Any other op is left where its result is used, since it costs nothing in the kernel that uses it. No kernel uses a result of
    the graph, so it is moved.
    """
    for node in reversed(graph.nodes):
        if node in wanted:
            wanted.update(i for i in node.all_input_nodes if i.op != "placeholder")
    last = next(reversed(graph.find_nodes(op="placeholder")), None)
    for node in [n for n in graph.nodes if n in wanted]:
        if last is not None:
            last.append(node)
        last = node


def _given(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose memory the caller gets, and those that such a node copies: the compiler may leave the copy out."""
    shown = {memory for r in graph.output_node().all_input_nodes for memory in aliases.storages(r)}
    given = {n for n in graph.nodes if aliases.storages(n) & shown}
    for node in reversed(graph.nodes):
        if node in given and len(node.all_input_nodes) == 1:
            given.update(node.all_input_nodes)
    return given


def _may_move(node: fx.Node) -> bool:
    """Whether ``node`` may move if its operands do. It is small then, and has no effect.

    A product moves only if it adds nothing up, as positions times frequencies. A 0-d constant stays, since it is compiled into
    the kernel that takes it.
    """
    if node.op == "get_attr":
        return True
    values, target = values_of(node), node.target
    if target is operator.getitem:
        return True
    if not isinstance(target, OpOverload) or target.namespace not in ("aten", "prims"):
        return False  # an operator of another library may draw random numbers or count its calls
    if aliases.is_impure(node) or not all(isinstance(v, torch.Tensor) and hint(v.numel()) <= MOST for v in values):
        return False
    sizes = [hint(n.meta["val"].numel()) for n in node.all_input_nodes] if is_heavy(node) else []
    if sizes and hint(values[0].numel()) != math.prod(sizes):
        return False
    return all(v.dim() or node.all_input_nodes for v in values)
