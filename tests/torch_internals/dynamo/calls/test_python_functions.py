"""Functions of Python that take a number are given the one that moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import breaks, graphs, kvfix
from torch import Tensor, nn


class Paged(nn.Module):
    """Pages of 16 rows."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pages", torch.zeros(4, 16, 2))
        self.at = 0

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        page, row = divmod(self.at, 16)
        self.pages[page, row] = x
        self.at += 1
        return self.pages[:, : row + 1].sum(1), page


@pytest.mark.parametrize("hooked", [False, True])
@torch.no_grad()
def test_a_quotient_and_a_remainder(hooked: bool) -> None:
    mine, eager = Paged(), Paged()
    for model in (mine, eager) if hooked else ():
        model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    compiled = kvfix(lambda x: mine(x))
    for _ in range(20):
        x = torch.rand(2)
        torch.testing.assert_close(compiled(x), eager(x))
        assert torch.equal(mine.pages, eager.pages)
    assert graphs() == 2 and not breaks()


BUCKETS: dict[str, Callable[[int], int]] = {
    "the next power of two": lambda n: 1 << (n - 1).bit_length(),
    "of an argument below zero": lambda n: 1 << (-n).bit_length(),
    "of a product": lambda n: 2 ** (3 * n).bit_length(),
}


@pytest.mark.parametrize("bucket", BUCKETS)
@torch.no_grad()
def test_a_number_of_bits_makes_a_graph_for_each_number_of_bits(bucket: str) -> None:
    """A cache is read in buckets, masked by its length; stock makes a graph for each length."""

    def step(k: Tensor, x: Tensor, p: int) -> tuple[Tensor, int]:
        k[:, p] = x
        rows = BUCKETS[bucket](p + 1)
        scores = (k[:, :rows] @ x[:, :, None]).masked_fill(torch.arange(rows)[:, None] > p, -torch.inf)
        return (scores.softmax(1) * k[:, :rows]).sum(1), rows

    compiled, (mine, eager), buckets = kvfix(step), torch.zeros(2, 2, 64, 4), set()
    for p in range(14):
        x = torch.rand(2, 4)
        found, expected = compiled(mine, x, p), step(eager, x, p)
        torch.testing.assert_close(found, expected)
        assert torch.equal(mine, eager)
        buckets.add(expected[1])
    assert graphs() <= len(buckets) + 1 < 8 and not breaks()
