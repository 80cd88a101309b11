"""Rows that a model writes by index are right where it then writes the same memory in another way (pytorch#198270)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpass.execute.compilation.overwritten import overwritten, write_apart
from fxpass.graph.propagate import propagate

aten = torch.ops.aten


def written(k: list[Tensor], at: Tensor, x: Tensor) -> None:
    """Each kind of write by index, and a permutation behind it."""
    k[0].index_copy_(0, at, x)
    k[0].copy_(k[0].roll(-1, 0))
    k[1][at] = x
    k[1].copy_(k[1].flip(0))
    k[2].index_put_((at,), x, accumulate=True)
    k[2].copy_(k[2].index_select(0, torch.arange(7, -1, -1)))
    k[3].index_add_(0, at, x)
    k[3].add_(k[3].roll(1, 0))
    k[4].index_fill_(0, at, 2.0)
    k[4].copy_(k[4].roll(-1, 0))
    k[5].select(1, 0).index_copy_(0, at, x[:, 0])
    k[5].copy_(k[5].flip(0))


def alone(k: list[Tensor], at: Tensor, x: Tensor) -> Tensor:
    written(k, at, x)
    return torch.stack(k).sum((0, 1))


def of_one_position(k: list[Tensor], i: Tensor, x: Tensor) -> Tensor:
    """Beside a slice by a position, which is rewritten."""
    p = int(i[0])
    k[6][p : p + 3] = x
    written(k, torch.arange(3) + p, x)
    i += 1
    return torch.stack(k[:6]).sum((0, 1)) + k[6][: p + 3].sum(0)


@pytest.mark.parametrize("step", [alone, of_one_position])
@torch.no_grad()
def test_rows_that_are_written_by_index_and_permuted(step: Callable[..., Tensor]) -> None:
    compiled = kvfix(step, compiler="inductor")
    mine = [torch.randn(8, 4) for _ in range(7)]
    eager = [k.clone() for k in mine]
    places = [torch.tensor([5, 2, 3]) if step is alone else torch.tensor([1]) for _ in range(2)]
    for _ in range(3):
        x = torch.randn(3, 4)
        torch.testing.assert_close(compiled(mine, places[0], x), step(eager, places[1], x))
        torch.testing.assert_close(mine, eager)


def once(k: Tensor, at: Tensor, x: Tensor) -> object:
    return (aten.index_copy_.default(k, 0, at, x),)


def twice(k: Tensor, at: Tensor, x: Tensor) -> object:
    aten.index_copy_.default(k, 0, at, x)
    return (aten.index_put_.default(k, [at], x),)


def multiplied_before(k: Tensor, at: Tensor, x: Tensor) -> object:
    aten.mul_.Tensor(k, 2)
    return (aten.index_copy_.default(k, 0, at, x),)


def in_other_memory(k: Tensor, at: Tensor, x: Tensor) -> object:
    aten.index_copy_.default(k, 0, at, aten.clone.default(x))
    return (aten.mul_.Tensor(x, 2),)


def multiplied(k: Tensor, at: Tensor, x: Tensor) -> object:
    done = aten.index_copy_.default(k, 0, at, x)
    aten.mul_.Tensor(aten.select.int(k, 1, 0), 2)
    return (aten.add.Tensor(done, 1),)


@pytest.mark.parametrize(
    "fn, expected", [(once, 0), (twice, 0), (multiplied_before, 0), (in_other_memory, 0), (multiplied, 1)]
)
def test_which_writes_go_through_a_copy(fn: Callable[..., object], expected: int) -> None:
    graph = fx.symbolic_trace(fn)
    given = [torch.zeros(8, 4), torch.arange(3), torch.ones(3, 4)]
    with FakeTensorMode() as mode:
        propagate(graph, [mode.from_tensor(t) for t in given])
    before = [n.name for n in graph.graph.nodes]
    assert len(overwritten(graph.graph)) == expected and write_apart(graph) is bool(expected)
    assert (before == [n.name for n in graph.graph.nodes]) is not bool(expected)
    eager = [t.clone() for t in given]
    torch.testing.assert_close(graph(*given), fn(*eager))
    torch.testing.assert_close(given, eager)


def test_eight_bit_floats_are_left_as_they_are() -> None:
    graph = fx.symbolic_trace(multiplied)
    with FakeTensorMode() as mode:
        propagate(graph, [mode.from_tensor(t) for t in (torch.zeros(8, 4), torch.arange(3), torch.ones(3, 4))])
        for node in graph.graph.find_nodes(op="placeholder"):
            if node.name == "k":
                node.meta["val"] = node.meta["val"].view(torch.float8_e5m2)
    assert overwritten(graph.graph) == []
