"""The table follows small integer tensors through a graph as PyTorch would compute them."""

from __future__ import annotations

import gc
import weakref

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import fx

from fxpass.index_tensors.advance import as_function
from fxpass.index_tensors.table import Table, tables


def traced(function, *inputs: torch.Tensor) -> tuple[fx.Graph, list[fx.Node]]:
    """The graph that Dynamo makes of ``function``, and its inputs in the order of ``inputs``."""
    torch._dynamo.reset()
    graphs: list[fx.Graph] = []

    def backend(gm, example_inputs):
        graphs.append(gm.graph)
        return gm.forward

    torch.compile(function, backend=backend, dynamic=False)(*(i.clone() for i in inputs))
    (graph,) = graphs
    return graph, [n for n in graph.nodes if n.op == "placeholder"]


def contents(function, *inputs: torch.Tensor) -> list[tuple[int, ...]]:
    """What the table says that the inputs hold after ``function``."""
    graph, placeholders = traced(function, *inputs)
    table = Table.of(graph)
    before = [i.reshape(-1).tolist() for i in inputs]
    return [tuple(as_function(table.contents(p), placeholders, {})(before, ())) for p in placeholders]


def test_a_view_sees_a_later_write() -> None:
    def step(idx):
        first = idx[0]
        idx[0] = first + 4
        idx[1] = first

    assert contents(step, torch.tensor([1, 2])) == [(5, 5)]


def test_in_place_arithmetic_and_fills() -> None:
    def step(idx):
        idx.add_(2)
        idx[1:].mul_(3)
        idx[0].zero_()

    assert contents(step, torch.tensor([1, 2, 3])) == [(0, 12, 15)]


def test_what_it_does_not_know_is_lost_with_its_memory() -> None:
    def step(idx):
        view = idx[0]
        idx.bitwise_xor_(3)
        return view + 1

    graph, placeholders = traced(step, torch.tensor([1, 2]))
    assert Table.of(graph).contents(placeholders[0]) is None


def test_float_tensors_and_large_tensors_are_not_followed() -> None:
    graph, placeholders = traced(lambda x, y: (x[0] + 1, y[0] + 1), torch.ones(2), torch.ones(5000, dtype=torch.int64))
    assert [Table.of(graph).contents(p) for p in placeholders] == [None, None]


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    st.lists(st.integers(-50, 50), min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from(["add", "sub", "mul", "set", "max"]), st.integers(0, 2), st.integers(0, 2),
                       st.integers(-5, 5)), max_size=6),
)  # fmt: skip
def test_any_program_of_small_steps(start: list[int], program: list[tuple[str, int, int, int]]) -> None:
    def step(idx):
        for op, i, j, n in program:
            if op == "set":
                idx[i] = idx[j]
            elif op == "max":
                idx[i] = torch.maximum(idx[j], idx[(j + 1) % 3])
            else:
                idx[i] = getattr(idx[j], op)(n)

    tensor = torch.tensor(start)
    expected = tensor.clone()
    step(expected)
    if program:
        assert contents(step, tensor) == [tuple(expected.tolist())]


def test_a_graph_has_one_table_while_its_frame_is_compiled() -> None:
    graph, _ = traced(lambda x: x + 1, torch.tensor([1, 2]))
    with tables():
        first = Table.of(graph)
        assert Table.of(graph) is first
        with tables():
            assert Table.of(graph) is not first
        assert Table.of(graph) is first
    assert Table.of(graph) is not first


@torch.no_grad()
def test_a_table_goes_with_the_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    made, stock = [], Table.__init__
    monkeypatch.setattr(Table, "__init__", lambda self, graph: (made.append(weakref.ref(self)), stock(self, graph))[1])
    step = torch.compile(lambda c, idx: c[: int(idx[0])].sum(), backend="kvfix", options={"compiler": "eager"})
    for n in (2, 3, 4):
        assert step(torch.ones(8), torch.tensor([n])) == n
    gc.collect()
    assert made and not any(ref() for ref in made)
