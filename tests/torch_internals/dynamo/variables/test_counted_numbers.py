"""Numbers that small tensors hold which a function makes of a number that moves: one graph serves all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

SIZE = 16

COUNTED: dict[str, Callable[[Any], Any]] = {
    "compared": lambda n: int((torch.arange(SIZE) < n).sum()),
    "compared, as ints": lambda n: (torch.arange(SIZE) < n).long().sum().item(),
    "of a moving size": lambda n: int(torch.ones(1, n, dtype=torch.long).sum(-1)[0]),
    "summed up": lambda n: int(torch.ones(n, dtype=torch.int32).cumsum(0)[-1]),
    "the largest": lambda n: int(torch.arange(n).max()) + 1,
    "where it is": lambda n: int((torch.arange(SIZE + 1) == n).long().argmax()),
    "of each row": lambda n: int((torch.arange(SIZE)[None] < torch.full((2, 1), n)).sum(1).max()),
    "read as a list": lambda n: (torch.arange(SIZE) < n).view(2, -1).sum(1).tolist()[0] + max(n - SIZE // 2, 0),
}


@torch.no_grad()
@pytest.mark.parametrize("origin", ["argument", "element"])
@pytest.mark.parametrize("name", list(COUNTED))
def test_one_graph_for_all_numbers(name: str, origin: str) -> None:
    def step(k: Tensor, x: Tensor, at: Any) -> Tensor:
        p = at if origin == "argument" else at[0]
        k[:, p : p + 1] = x
        n = COUNTED[name](p + 1)
        return k[:, :n].sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine = torch.zeros(2, SIZE, 3)
    eager = mine.clone()
    for p in range(7):
        x, at = torch.randn(2, 1, 3), p if origin == "argument" else torch.tensor([p])
        torch.testing.assert_close(compiled(mine, x, at), step(eager, x, at))
        assert torch.equal(mine, eager)
    assert counters["stats"]["unique_graphs"] <= 3 and not counters["graph_break"]


ROWS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "below": lambda k, p: k[:, torch.arange(SIZE) < p].sum(1),
    "between": lambda k, p: k[:, (torch.arange(SIZE) < p) & (torch.arange(SIZE) >= p - 2)].amax(1),
    "turned": lambda k, p: k.transpose(0, 1)[torch.arange(SIZE) <= p].mean(0),
    "their places": lambda k, p: k[:, torch.where(torch.arange(SIZE) < p)[0]].sum(1),
    "counted without a number": lambda k, p: k[:, : int((torch.arange(SIZE) < 5).sum())] * p,
}


@torch.no_grad()
@pytest.mark.parametrize("name", list(ROWS))
def test_rows_of_a_mask_without_an_index_tensor(name: str) -> None:
    compiled = torch.compile(ROWS[name], backend="kvfix", options={"compiler": "eager"})
    for p in range(3, 9):
        k = torch.randn(2, SIZE, 3)
        torch.testing.assert_close(compiled(k, p), ROWS[name](k, p))
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
