"""Memory: views share it, schemas say who writes, purity does not depend on users."""

from __future__ import annotations

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fxpass.graph import aliases

aten = torch.ops.aten


def graph_of(function, *inputs):
    return make_fx(function, tracing_mode="fake")(*inputs).graph


def only(graph, target):
    return next(n for n in graph.nodes if n.target is target)


def test_a_view_leads_to_its_input() -> None:
    graph = graph_of(lambda x: x[1].transpose(0, 1).clone(), torch.zeros(2, 3, 4))
    view = only(graph, aten.transpose.int)
    assert aliases.root(view).op == "placeholder"
    assert aliases.storage(view) != aliases.storage(only(graph, aten.clone.default))


def test_what_is_written() -> None:
    def step(x, y):
        x[0].copy_(y)
        return y + 1

    graph = graph_of(step, torch.zeros(2, 3), torch.ones(3))
    copy = only(graph, aten.copy_.default)
    assert [aliases.root(w).name for w in aliases.written(copy)] == ["x_1"]
    assert aliases.written(only(graph, aten.add.Tensor)) == []


def test_dead_code_keeps_writes_without_users() -> None:
    def step(x, y):
        x[1:].index_copy_(0, y, x[:1] * 2)
        (x + 1).sum()
        return x.sum()

    graph = graph_of(step, torch.zeros(4), torch.tensor([2]))
    assert not only(graph, aten.index_copy_.default).users
    assert len([n for n in graph.nodes if n.target is aten.sum.default]) == 2
    aliases.remove_dead(graph)
    only(graph, aten.index_copy_.default)
    assert len([n for n in graph.nodes if n.target is aten.sum.default]) == 1
