"""Functions of Python that take a number are given the one that moves."""

from __future__ import annotations

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
