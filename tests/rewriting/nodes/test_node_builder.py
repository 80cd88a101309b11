"""Numbers that analysis has derived become nodes: each once, however often it is used."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from fxpass.graph.numbers import derivation, derived
from fxpass.rewriting.nodes.node_builder import NodeBuilder

DOUBLINGS = 200


def doubled(node: fx.Node) -> Any:
    number: Any = node
    for _ in range(DOUBLINGS):
        number = derived(operator.add, (number, number), node.next)
    return number


def graph_of_one_number() -> tuple[fx.Graph, fx.Node]:
    graph, env = fx.Graph(), ShapeEnv()
    node = graph.placeholder("s")
    node.meta["val"] = env.create_unbacked_symint()
    graph.output((node,))
    return graph, node


def test_what_a_number_shares_is_computed_once() -> None:
    graph, node = graph_of_one_number()
    builder: NodeBuilder = NodeBuilder(graph, twins=None, kinds=None).at(node.next)  # type: ignore[arg-type]
    made = builder.number(doubled(node))
    graph.output_node().args = ((made,),)
    assert sum(n.op == "call_function" for n in graph.nodes) == DOUBLINGS
    assert fx.Interpreter(fx.GraphModule({}, graph)).run(1) == (2**DOUBLINGS,)


def test_the_derivation_of_a_number_lists_operands_first() -> None:
    _, node = graph_of_one_number()
    order = derivation(doubled(node))
    assert len(order) == DOUBLINGS
    for before, after in itertools.pairwise(order):
        assert after.args == (before, before)
    assert derivation(node) == derivation(3) == []


def test_an_int_stays_an_int() -> None:
    graph, node = graph_of_one_number()
    builder: NodeBuilder = NodeBuilder(graph, twins=None, kinds=None).at(node.next)  # type: ignore[arg-type]
    assert builder.number(3) == 3 and builder.arithmetic(operator.sub, 7, 1) == 6
    assert isinstance(builder.arithmetic(operator.sub, node, 1), fx.Node)
    node.meta["val"] = torch.empty(4, 5)
    assert builder.size(node, 1) == 5
