"""A part of a graph: what its ops take from the rest, what they give to it, and the part as a module of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from fxpass.graph import aliases


def operands(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """The operands of ``nodes`` that are not among them, in the order of their first use."""
    own = set(nodes)
    return list(dict.fromkeys(i for n in nodes for i in n.all_input_nodes if i not in own))


def results(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of ``nodes`` that other nodes use."""
    own = set(nodes)
    return [n for n in nodes if any(u not in own for u in n.users)]


def descendants(node: fx.Node) -> list[fx.Node]:
    """The tensors, and tuples of these, that are computed from what ``node`` holds, in order. So are those that it is written
    into, ``made[:end] = node``."""
    found, written = {node}, set[int]()
    for other in node.graph.nodes:
        if other.op == "call_function" and any(i in found or aliases.storages(i) & written for i in other.all_input_nodes):
            if isinstance(other.meta.get("val"), (torch.Tensor, tuple, list)):
                found.add(other)
            written |= {m for target in aliases.written(other) for m in aliases.storages(target)}
    made = [n for n in node.graph.nodes if n.op == "call_function" and (n in found or aliases.storages(n) & written)]
    return [n for n in made if n is not node]


def ancestors(node: fx.Node) -> set[fx.Node]:
    """``node``, and all that it is computed from."""
    found, todo = {node}, [node]
    while todo:
        new = set(todo.pop().all_input_nodes) - found
        found |= new
        todo += new
    return found


def extract(
    gm: fx.GraphModule, nodes: Sequence[fx.Node], takes: Sequence[fx.Node], gives: Sequence[fx.Node], name: str
) -> fx.GraphModule:
    """A module that computes ``nodes`` of ``gm``, in graph order: it takes ``takes`` and returns the tuple ``gives``."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in takes:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[n] for n in gives))
    return fx.GraphModule(gm, graph, class_name=name)


def copied_graph(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    """A copy of ``graph``, and a map from the nodes of ``graph`` to those of the copy. What ``meta`` holds is shared."""
    made = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        nodes[node] = made.node_copy(node, nodes.__getitem__)
    return made, nodes


def duplicate(gm: fx.GraphModule, name: str = "GraphModule") -> fx.GraphModule:
    """A module with a copy of ``gm``'s graph, which can be edited while that one stays as it is."""
    return fx.GraphModule(gm, copied_graph(gm.graph)[0], class_name=name)
