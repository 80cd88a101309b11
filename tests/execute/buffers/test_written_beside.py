"""A graph that reads what grows in a buffer, and writes to its memory by another name, runs as it came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor


def joined(k: Tensor, other: Tensor, x: Tensor) -> Tensor:
    other.add_(1)
    return torch.cat([k, x], 1)


def summed(k: Tensor, other: Tensor, x: Tensor) -> Tensor:
    other.add_(1)
    return (k * x).cumsum(1)


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("step", [joined, summed])
@torch.no_grad()
def test_a_write_by_another_name_is_seen(step: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    compiled = kvfix(step)
    k = torch.rand(2, 3, 4)
    for call in range(8):
        x, mine, eager = torch.rand(2, 1, 4), k, k.clone()
        shared = call in (4, 6)
        others = (mine[:], eager[:]) if shared else (torch.zeros_like(k), torch.zeros_like(k))
        got, expected = compiled(mine, others[0], x), step(eager, others[1], x)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(mine, eager)
        k = got if step is joined else torch.cat([mine, x], 1)


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@torch.no_grad()
def test_after_a_break_a_view_of_what_is_read_is_written() -> None:
    """``y`` is a copy until the slice is the whole cache, and then a view of it."""

    def step(k: Tensor, x: Tensor, start: int) -> Tensor:
        end = start + x.shape[2]
        k[:, :, start:end] = x
        rows = k[:, :, :end]
        y = rows.reshape(2, -1, 4)
        torch._dynamo.graph_break()
        y.add_(1)
        return rows.sum(-2)

    compiled = kvfix(step)
    for _ in range(2):
        mine, eager = torch.zeros(2, 3, 8, 4), torch.zeros(2, 3, 8, 4)
        for start, rows in ((0, 3), *((p, 1) for p in range(3, 8))):
            x = torch.rand(2, 3, rows, 4)
            torch.testing.assert_close(compiled(mine, x, start), step(eager, x, start))
            torch.testing.assert_close(mine, eager)
