"""What is taken apart, and what stays whole."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpass.graph.decompose import decompose
from fxpass.torch_internals.operators import decomposition_table

aten = torch.ops.aten


def called(target: Any, *args: Any, **kwargs: Any) -> tuple[fx.Graph, fx.Node]:
    """A graph with one call of ``target``; the tensor among ``args`` is its input."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    (value,) = (a for a in args if isinstance(a, torch.Tensor))
    x.meta["val"] = FakeTensorMode().from_tensor(value)
    return graph, graph.call_function(target, tuple(x if a is value else a for a in args), kwargs)


def took_apart(graph: fx.Graph, node: fx.Node, value: torch.Tensor, expected: Any) -> set[Any]:
    """The operators that ``node`` has been taken apart into, once these give what is ``expected``."""
    assert decompose(node)
    graph.lint()
    torch.testing.assert_close(fx.GraphModule({}, graph)(value), expected)
    return {n.target for n in graph.nodes if n.op == "call_function"}


VALUE = torch.linspace(-4, 4, 24).reshape(4, 6)


@pytest.mark.parametrize("fn, args", [
    (aten.hardswish.default, ()), (aten.glu.default, (1,)), (aten.movedim.int, (0, 1)), (aten.rot90.default, (1, [0, 1])),
    (aten.renorm.default, (2, 0, 1.0)), (aten.diag_embed.default, ()),
])  # fmt: skip
def test_one_result(fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    graph, node = called(fn, VALUE, *args)
    graph.output(node)
    assert fn not in took_apart(graph, node, VALUE, fn(VALUE, *args))


@pytest.mark.parametrize("fn, kwargs", [(aten.aminmax.default, {"dim": 1}), (aten.log_sigmoid_forward.default, {})])
def test_several_results_of_which_some_are_used(fn: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """Also where PyTorch gives them in a named tuple, which no code can name."""
    graph, node = called(fn, VALUE, **kwargs)
    graph.output(graph.call_function(operator.getitem, (node, 0)))
    assert not any("return_types" in str(t) for t in took_apart(graph, node, VALUE, fn(VALUE, **kwargs)[0]))


def test_a_tuple_that_is_used_whole_stays() -> None:
    graph, node = called(aten.aminmax.default, VALUE, dim=1)
    graph.output(node)
    assert not decompose(node) and node in graph.nodes


@pytest.mark.parametrize("fn, args", [
    (aten.bernoulli.default, ()), (aten.rand_like.default, ()), (aten.multinomial.default, (1,)),  # random numbers
    (aten.diagonal.default, ()), (aten.unfold.default, (0, 2, 1)), (aten.expand.default, ([4, 6],)),  # views
    (aten.hardswish_.default, ()), (aten.mode.default, ()), (operator.neg, ()),
])  # fmt: skip
def test_what_stays_whole(fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    graph, node = called(fn, VALUE, *args)
    graph.output(node)
    assert not decompose(node)
    assert [n.target for n in graph.nodes if n.op == "call_function"] == [fn]


@pytest.mark.parametrize("size", [[2, 3], [3, 6]])
def test_a_formula_that_declines_leaves_the_operator_whole(size: list[int]) -> None:
    """PyTorch pools by its formula where the rows are parted evenly. Up to 2.11 it has none."""
    graph, node = called(aten.adaptive_max_pool2d.default, VALUE[None], size)
    graph.output(graph.call_function(operator.getitem, (node, 0)))
    assert decompose(node) == (size == [2, 3] and aten.adaptive_max_pool2d.default in decomposition_table)
