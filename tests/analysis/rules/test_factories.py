"""Tensors that are made to a length, as masks of attention are: they are made to the full size, in the static core."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass

CAPACITY, DIM = 72, 4
Make = Callable[[int, int, int], Tensor]

MADE: dict[str, Make] = {
    "ones": lambda p, n, rows: torch.ones(rows, n),
    "an identity": lambda p, n, rows: torch.eye(n)[p:n],
    "an identity of truths": lambda p, n, rows: (~torch.eye(n, dtype=torch.bool)).float()[p:n],
    "an identity with more columns": lambda p, n, rows: torch.eye(rows, n),
    "an identity with more rows": lambda p, n, rows: torch.eye(n, rows).mT,
    "a product of identities": lambda p, n, rows: (torch.eye(n) @ torch.eye(n, n))[p:n],
    "every other number": lambda p, n, rows: torch.arange(0, 2 * n, 2) * 0.1,
    "every third number, of some": lambda p, n, rows: torch.arange(1, 3 * n, 3).float(),
    "every other number, backwards": lambda p, n, rows: torch.arange(2 * n, 0, -2) * 0.1,
    "a mesh": lambda p, n, rows: torch.sub(*torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))[p:n] * 0.1,
    "a size of all elements": lambda p, n, rows: torch.zeros(rows, torch.arange(n).numel()) + torch.ones(2, n).numel(),
    "a triangle in place": lambda p, n, rows: torch.full((n, n), float("-inf")).triu_(1)[p:n],
    "a triangle in place at a position": lambda p, n, rows: torch.ones(rows, n).tril_(p - 1),
}


@torch.no_grad()
@pytest.mark.parametrize("name", MADE)
def test_made_to_a_length(name: str) -> None:
    def step(keys: Tensor, x: Tensor, p: int) -> Tensor:
        n = p + x.shape[0]
        keys[p:n] = x
        return (x @ keys[:n].mT + MADE[name](p, n, x.shape[0])).softmax(-1) @ keys[:n]

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.full((2, CAPACITY, DIM), float("nan"))
    p = 0
    for rows in (4, 2, 2, 2, 2):
        x = torch.randn(rows, DIM)
        torch.testing.assert_close(compiled(mine, x, p), step(eager, x, p))
        torch.testing.assert_close(mine, eager, equal_nan=True)
        p += rows
    report = fxpass.reports()[-1]
    assert not report.refused and not report.outside and len(fxpass.reports()) == 2
    assert "epilogue" not in {part for part, *_ in report.parts}
