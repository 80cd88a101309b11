"""Inductor takes out clones; what is returned must be apart from inputs, and from other results, all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpass.execute.compilation.kept_copies import keep_copies
from fxpass.graph.propagate import propagate

aten = torch.ops.aten


def by_element(i: Tensor) -> int:
    return int(i[0])


def by_item(i: Tensor) -> int:
    return i.sum().item()


@pytest.mark.parametrize("read", [by_element, by_item])
@torch.no_grad()
def test_a_position_as_a_result_stays_when_the_index_tensor_moves(read: Callable[[Tensor], int]) -> None:
    def step(i: Tensor, k: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        p = read(i)
        i += 1
        k[:, p] = x
        alone, listed, filled = torch.tensor(p), torch.tensor([p]), torch.full((1,), p)
        return k[:, : p + 1].sum(1), alone, listed, filled, torch.tensor(p), torch.cat([torch.tensor([[p]])])

    compiled = kvfix(step, compiler="inductor")
    mine, eager = ((torch.full((1,), 3), torch.zeros(2, 16, 4)) for _ in range(2))
    found = []
    for _ in range(3):
        x = torch.rand(2, 4)
        results = compiled(*mine, x)
        found.append((results, [r.clone() for r in step(*eager, x)]))
        assert len({t.data_ptr() for t in (*results, *mine)}) == len(results) + len(mine)
    for results, expected in found:
        torch.testing.assert_close(list(results), expected)


def in_a_row(i: Tensor) -> object:
    first = aten.clone.default(i)
    aten.add_.Tensor(i, 1)
    return (aten.clone.default(aten.select.int(first, 0, 0)),)


def alone(i: Tensor) -> object:
    first = aten.clone.default(i)
    aten.add_.Tensor(i, 1)
    return (aten.select.int(first, 0, 0),)


def not_returned(i: Tensor) -> object:
    return (aten.add.Tensor(aten.clone.default(aten.mul.Tensor(i, 2)), 1),)


def of_eight_bit_floats(i: Tensor) -> object:
    first = aten.clone.default(aten.view.dtype(i, torch.float8_e5m2))
    return (aten.clone.default(aten.view.default(first, [4, 8])),)


@pytest.mark.parametrize(
    "fn, expected", [(in_a_row, ["clone_default"]), (alone, []), (not_returned, []), (of_eight_bit_floats, [])]
)
def test_what_is_kept(fn: Callable[..., object], expected: list[str]) -> None:
    graph = fx.symbolic_trace(fn)
    with FakeTensorMode() as mode:
        propagate(graph, [mode.from_tensor(torch.zeros(4, dtype=torch.int64))])
    keep_copies(graph)
    assert [
        node.args[1].name for node in graph.graph.find_nodes(op="call_function", target=aten.where.self)
    ] == expected
