"""What a graph cannot be written in aten for is a reason, not a fault of the pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor

import fxpass


def lookup(x: Tensor, start: Tensor) -> Tensor:
    return torch.linspace(0, 1, 8)[start] + x


def lower_triangle(x: Tensor, start: Tensor) -> Tensor:
    return torch.ones(2, 8).tril(start).sum() + x


def upper_triangle(x: Tensor, start: Tensor) -> Tensor:
    return torch.ones(2, 8).triu(diagonal=start).sum() + x


def row(x: Tensor, start: Tensor) -> Tensor:
    return torch.arange(8.0).select(0, start) + x


def rolled(x: Tensor, start: Tensor) -> Tensor:
    return x.roll(start, -1)


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("use", [lookup, lower_triangle, upper_triangle, row, rolled])
@torch.no_grad()
def test_numbers_that_tensors_hold(use: Callable[[Tensor, Tensor], Tensor], compiler: str) -> None:
    def step(k: Tensor, idx: Tensor, x: Tensor) -> Tensor:
        start = idx[0]
        end = start + 1
        k[:, start:end] = x
        torch._dynamo.graph_break()
        out = use(x, start) + k[:, :end].sum(1, keepdim=True)
        idx[0] += 1
        return out

    compiled = kvfix(step, compiler=compiler)
    mine, eager = ((torch.zeros(2, 8, 2), torch.full((1,), 2)) for _ in range(2))
    for _ in range(4):
        x = torch.rand(2, 1, 2)
        torch.testing.assert_close(compiled(*mine, x), step(*eager, x))
        assert torch.equal(mine[0], eager[0]) and torch.equal(mine[1], eager[1])
    assert not any("the pass failed" in report.unfit for report in fxpass.reports())
