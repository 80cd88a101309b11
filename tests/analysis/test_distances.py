"""Distances to the rows of a buffer: as exact as those to the rows alone."""

from __future__ import annotations

import pytest
import torch

import fxpass


def to_all(k: torch.Tensor, end: int, x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, k[:, :end]).topk(3, largest=False).values


def from_all(k: torch.Tensor, end: int, x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(k[:, :end], x).amin(1)


@pytest.mark.parametrize("distances", [to_all, from_all])
@torch.no_grad()
def test_few_rows_of_a_long_buffer(distances: object) -> None:
    """A row is 0 away from itself. PyTorch loses that where it takes the distances of more than 25 rows from a product."""
    fn, rows = torch.compile(distances, backend="kvfix", options={"compiler": "eager"}), torch.randn(4, 64, 16)
    for end in range(5, 25):
        x = rows[:, end - 3 : end - 1].clone()
        torch.testing.assert_close(fn(rows, end, x), distances(rows, end, x), atol=1e-6, rtol=1e-5)  # type: ignore[operator]
    assert fxpass.reports()[-1].rewritten and not fxpass.reports()[-1].refused
