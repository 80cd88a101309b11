"""A graph as a networkx graph of plain text, from which its code and its picture are made.

A node is called what fx calls it, and stands in the order of the program. Its attributes:

kind        "input", "owned" (an input that belongs to a module), "op" or "output"
label       what the user calls an input; of another node its name
call        the expression, with ``{name}`` for what other nodes give: ``aten.add({select_int}, 1)``
op          the operator alone: ``aten.add``
type        dtype and shape: ``f32[2, s0, 8]``
source      ``file:line`` of the user's code, and ``code``, the text of that line; empty when unknown
module      the modules that it was called in, the outermost first: ``(("layers.0", "Layer"), ("layers.0.mlp", "MLP"))``
equal       whether another node with the same expression is the same value: what masks are made with
part        the part of the graph that it runs in, once that is cut; empty before
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx
import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.torch_internals.dynamo.origins import name_of

from .expressions import call_of, code_of, operator_of, source_of, type_of
from .names import is_owned, user_name

aten = torch.ops.aten

_REPEATED = {aten.arange, aten.scalar_tensor, aten.full, aten.lt, aten.le, aten.gt, aten.ge, aten.eq, aten.unsqueeze,
             aten.logical_and, aten.logical_not, aten.sub, aten.add}  # fmt: skip
"""What masks are made with."""


def drawn(gm: fx.GraphModule) -> nx.DiGraph:
    """``gm`` as such a graph."""
    graph = nx.DiGraph()
    written = {aliases.root(w) for n in gm.graph.nodes for w in aliases.written(n)}
    labels: dict[str, str] = {}
    modules: dict[tuple[str, ...], tuple[tuple[str, str], ...]] = {}
    for node in gm.graph.nodes:
        label = _label(node, labels)
        labels[label] = node.name
        stack = node.meta.get("nn_module_stack") or {}
        called = tuple(path for path, _ in stack.values())
        if called not in modules:
            modules[called] = _modules(stack)
        graph.add_node(
            node.name,
            kind=_kind(node),
            label=label,
            call=call_of(node),
            op=operator_of(node),
            type=type_of(node.meta.get("val")),
            source=source_of(node),
            code=code_of(node),
            module=modules[called],
            equal=_is_repeated(node) and written.isdisjoint(map(aliases.root, (node, *node.all_input_nodes))),
            part="",
        )
        graph.add_edges_from((used.name, node.name) for used in node.all_input_nodes)
    return graph


def place(graph: nx.DiGraph, parts: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Note the part that each node of ``graph`` runs in: ``parts`` gives the names of the nodes of each."""
    for part, names in parts:
        for name in names:
            if name in graph:
                graph.nodes[name]["part"] = part


def input_name(node: fx.Node) -> str:
    """What the user calls the input ``node``."""
    return user_name(name_of(node))


def _kind(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "owned" if is_owned(name_of(node)) else "input"
    return "output" if node.op == "output" else "op"


def _label(node: fx.Node, taken: Mapping[str, str]) -> str:
    label = user_name(name_of(node)) if node.op == "placeholder" else node.name
    return node.name if label in taken else label


def _modules(stack: Mapping[str, tuple[str, Any]]) -> tuple[tuple[str, str], ...]:
    named = ((user_name(path), kind if isinstance(kind, str) else kind.__name__) for path, kind in stack.values())
    return tuple((path, kind.rpartition(".")[2]) for path, kind in named if path and path != "self")


def _is_repeated(node: fx.Node) -> bool:
    return getattr(node.target, "overloadpacket", None) in _REPEATED
