"""Arrays share memory where PyTorch's tensors do, and what an unknown op may have written is forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx

from fxpass.index_tensors.arrays import Arrays
from fxpass.index_tensors.contents import Element


def graph_of(*ops: Callable[[Tensor], Tensor]) -> tuple[fx.Graph, list[fx.Node]]:
    """An input of four numbers, and each of ``ops`` on it."""
    graph, value = fx.Graph(), torch.arange(4)
    nodes = [graph.placeholder("idx")]
    nodes[0].meta["example_value"] = value
    for op in ops:
        nodes.append(graph.call_function(op, (nodes[0],)))
        nodes[-1].meta["example_value"] = op(value)
    return graph, nodes


def tail(x: Tensor) -> Tensor:
    return x[1:]


def copy(x: Tensor) -> Tensor:
    return x[1:].clone()


def test_an_input_holds_its_elements() -> None:
    graph, (idx,) = graph_of()
    arrays = Arrays(graph)
    assert arrays.may_start(idx) and arrays.get(idx) is None
    arrays.start(idx)
    assert list(arrays.get(idx)) == [Element(idx, i) for i in range(4)]
    assert not arrays.may_start(idx)
    arrays.clear()
    assert arrays.may_start(idx) and not arrays.known


def test_a_view_is_a_view_and_a_copy_a_copy() -> None:
    graph, (idx, view, own) = graph_of(tail, copy)
    arrays = Arrays(graph)
    arrays.start(idx)
    for node in (view, own):
        arrays.put_result(node, arrays.get(idx)[1:])
    arrays.get(idx)[1] = 7
    assert arrays.get(view)[0] == 7 and arrays.get(own)[0] == Element(idx, 1)


@pytest.mark.parametrize("wrong", ["a copy of a view", "another shape"])
def test_a_result_that_is_not_pytorchs_is_not_known(wrong: str) -> None:
    graph, (idx, view) = graph_of(tail)
    arrays = Arrays(graph)
    arrays.start(idx)
    arrays.put_result(view, arrays.get(idx)[1:].copy() if wrong == "a copy of a view" else arrays.get(idx)[2:])
    assert arrays.get(view) is None and arrays.held(view) is None


def test_all_of_a_memory_is_lost_at_once() -> None:
    graph, (idx, view, own) = graph_of(tail, copy)
    arrays = Arrays(graph)
    arrays.start(idx)
    for node in (view, own):
        arrays.put_result(node, arrays.get(idx)[1:])
    arrays.put_views(view, [arrays.get(idx)[1:2]])
    arrays.lose(view)
    assert arrays.known == [own] and arrays.held(view) is None and not arrays.may_start(idx)


def test_what_is_given_up_does_not_start() -> None:
    graph, (idx,) = graph_of()
    arrays = Arrays(graph)
    arrays.give_up(idx)
    assert not arrays.may_start(idx) and not arrays.known
