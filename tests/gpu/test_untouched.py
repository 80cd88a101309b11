"""Graphs in which nothing is rewritten are recorded by Inductor; what they return stays when the next call has run."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import fxpass

pytestmark = pytest.mark.gpu

DIM = 64


class Block(nn.Module):
    """A layer over a static cache: rows are written at a place, and all are read."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.register_buffer("k", torch.zeros(1, 16, DIM))

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        self.k.index_copy_(1, at, self.mix(x))
        return x + self.out(torch.softmax(x @ self.k.mT, -1) @ self.k)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block(), Block()])

    def forward(self, x: Tensor, at: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, at)
        return x


@pytest.mark.parametrize("each", [False, True], ids=["whole", "each block"])
@torch.no_grad()
def test_results_are_kept(each: bool) -> None:
    eager = Model().cuda()
    mine = copy.deepcopy(eager)
    if each:
        for block in mine.blocks:
            block.compile(backend="kvfix")
    else:
        mine.compile(backend="kvfix")
    results = []
    for at in range(8):
        x, place = torch.rand(1, 1, DIM, device="cuda"), torch.tensor([at], device="cuda")
        results.append((mine(x, place), eager(x, place)))
    for got, expected in results:
        torch.testing.assert_close(got, expected)
    assert not any(report.rewritten for report in fxpass.reports())


def test_a_model_in_training_has_eagers_gradients() -> None:
    eager = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM)).cuda()
    mine = copy.deepcopy(eager)
    compiled = torch.compile(mine, backend="kvfix")
    with pytest.warns(fxpass.KvfixWarning):
        for _ in range(4):
            x = torch.rand(8, DIM, device="cuda")
            first, second = compiled(x), compiled(x + 1)
            (first.sum() + second.square().sum()).backward()
            (eager(x).sum() + eager(x + 1).square().sum()).backward()
    for a, b in zip(mine.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
