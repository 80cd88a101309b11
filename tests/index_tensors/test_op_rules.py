"""Rules of ops on index tensors: over dims, choices, what is made of numbers. As PyTorch computes them, and in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_table import contents
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass

ROWS: dict[str, Callable[[Tensor], Any]] = {
    "max along a dim": lambda t: torch.stack(tuple(t.max(0))),
    "min, named": lambda t: t.min(dim=1).values + t.min(1, keepdim=True)[1].squeeze(1),
    "of two": lambda t: torch.max(t[0], t[1]) - torch.min(t, t.flip(0)).sum(0),
    "amax": lambda t: t.amax((0, 1)) - t.amin(-1, keepdim=True)[0] + t.argmax(0).sum(),
    "sums": lambda t: t.sum(0) + t.sum(dim=-1)[0] + t.prod(1)[1] + t.sum((0, 1)),
    "how many": lambda t: (t > 2).sum(0) + (t[None] == t).sum() + torch.count_nonzero(t, 0) + (t != 3).long().sum(1)[0],
    "cumsum": lambda t: t.cumsum(0) * t.cumsum(-1),
    "all and any": lambda t: (t > 2).all(0).int() + (t > 4).any(dim=1, keepdim=True).to(torch.int64),
    "turned": lambda t: t.t() + t.permute(1, 0) * 2 + t.transpose(0, 1).flip(0, 1),
    "rolled out": lambda t: t[0].expand(2, 2) * t[:, :1].expand(-1, 2),
    "where": lambda t: torch.where(t > 2, t, -t) + t.where(t < 4, t * 2) + torch.where(t == 3, 1, 0),
    "masked_fill": lambda t: t.masked_fill(t.to(torch.bool), 7) + t.masked_fill(t > 3, 0),
    "made": lambda t: t + torch.tensor([[1, 2], [3, 4]]) + torch.zeros_like(t) + torch.ones(2, dtype=torch.int64),
    "full": lambda t: t * torch.full((2, 2), 3) - torch.ones_like(t),
}


@pytest.mark.parametrize("name", list(ROWS))
def test_as_pytorch_computes_them(name: str) -> None:
    make = ROWS[name]

    def step(idx: Tensor) -> None:
        idx.copy_(make(idx))

    for values in ([[1, 5], [3, 2]], [[4, 4], [0, 4]]):
        idx = torch.tensor(values)
        (found,) = contents(step, idx)
        step(idx)
        assert found == tuple(idx.reshape(-1).tolist()), values


POSITIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "equal": lambda at, pad: int(at[0]) if torch.equal(at, at.flip(0)) and not pad.equal(at + 9) else 0,
    "where": lambda at, pad: int(torch.where(pad > 0, at, at + 1)[0]),
    "max along a dim": lambda at, pad: int(at.view(1, 2).max(1).values[0]) + int((pad > 9).sum()),
    "a table": lambda at, pad: int((at[None] == at[:, None]).all(0).long().sum() + at[0]),
    "cumsum": lambda at, pad: int(at.cumsum(0)[-1]) // 2,
    "at least": lambda at, pad: int(torch.maximum(at, torch.tensor([2, 2]))[1]),
}


@torch.no_grad()
@pytest.mark.parametrize("name", list(POSITIONS))
def test_in_a_step(name: str) -> None:
    """One graph for the first step and one for all others; none breaks."""

    def step(k: Tensor, x: Tensor, at: Tensor, pad: Tensor) -> Tensor:
        p = POSITIONS[name](at, pad)
        k[:, p : p + 1] = x
        return (k[:, : p + 1].softmax(1) * k[:, : p + 1]).sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.zeros(2, 2, 12, 4)
    for i in range(1, 6):
        given = torch.rand(2, 1, 4), torch.tensor([i + 2, i + 2]), torch.tensor([3, 0])
        torch.testing.assert_close(compiled(mine, *given), step(eager, *given))
        torch.testing.assert_close(mine, eager)
    assert counters["stats"]["unique_graphs"] <= 2 and not counters["graph_break"]
    assert fxpass.reports()[-1].rewritten and not fxpass.reports()[-1].refused


MADE: dict[str, Callable[[int], Any]] = {
    "a tensor": lambda p: int(torch.tensor(p)),
    "a list": lambda p: torch.tensor([0, p])[1].item(),
    "lists": lambda p: int(torch.tensor([[p, p + 1], [1, 0]], dtype=torch.int32).max()) - 1,
    "added to": lambda p: (torch.tensor([p]) + torch.tensor(1)).tolist()[0] - 1,
    "a slice": lambda p: torch.tensor(p),
    "a scalar": lambda p: torch.scalar_tensor(p, dtype=torch.int64),
    "full": lambda p: int(torch.full((2,), p).min()),
}


@torch.no_grad()
@pytest.mark.parametrize("name", list(MADE))
def test_a_tensor_that_is_made_of_a_number_that_moves(name: str) -> None:
    """The number is read from it again, or it is a bound of a slice. Dynamo has names of its own for such a `torch.tensor`."""

    def step(k: Tensor, x: Tensor, given: int) -> Tensor:
        p = MADE[name](given)
        k[:, p : p + 1] = x
        return k[:, : p + 1].softmax(1).sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.zeros(2, 2, 12, 4)
    for p in range(6):
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(mine, x, p), step(eager, x, p))
        torch.testing.assert_close(mine, eager)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"] and not counters["unimplemented"]
    assert fxpass.reports()[-1].rewritten and not fxpass.reports()[-1].refused
