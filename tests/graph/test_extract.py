"""A part of a graph as a module of its own: what it takes, what it gives, and what it computes."""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from fxpass.graph.extract import copied_graph, descendants, duplicate, extract, operands, results


def scaled(x: Tensor, w: Tensor) -> Tensor:
    y = x * w
    z = y + 1
    return torch.relu(z) - y


def test_a_part_computes_what_it_did() -> None:
    gm = fx.symbolic_trace(scaled)
    x, w, y, z, *rest = (n for n in gm.graph.nodes if n.op != "output")
    assert operands([y, z]) == [x, w] and results([y, z]) == [y, z]
    assert operands(rest) == [z, y] and results(rest) == [rest[-1]]
    first = extract(gm, [y, z], [w, x], [z, y], "first")
    second = extract(gm, rest, [z, y], [rest[-1]], "second")
    given = torch.tensor([-3.0, 2.0]), torch.tensor([2.0, 4.0])
    assert torch.equal(*second(*first(*reversed(given))), scaled(*given))
    assert [type(part).__name__ for part in (first, second)] == ["first", "second"]


def test_a_copy_can_be_edited_alone() -> None:
    gm = fx.symbolic_trace(scaled)
    before = str(gm.graph)
    graph, nodes = copied_graph(gm.graph)
    assert str(graph) == before and list(nodes) == list(gm.graph.nodes) and list(nodes.values()) == list(graph.nodes)
    other = duplicate(gm)
    other.graph.erase_node(other.graph.output_node())
    assert str(gm.graph) == before


def filled(x: Tensor, y: Tensor) -> Tensor:
    made = torch.empty(3)
    part = made[:2]
    part.copy_(x)
    return made + y


def test_what_is_written_is_computed_from_what_goes_in() -> None:
    gm = make_fx(filled, tracing_mode="fake")(torch.randn(2), torch.randn(3))
    x, y = gm.graph.find_nodes(op="placeholder")
    ops = [node for node in gm.graph.nodes if node.op == "call_function"]
    assert [n.target.__name__.split(".")[0] for n in ops] == ["empty", "slice", "copy_", "add"]
    assert descendants(x) == ops and descendants(y) == ops[-1:]
