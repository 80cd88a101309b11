"""What an op takes in the place of each operand: two slices of one buffer are two operands, though both become the buffer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor
from torch.nn.functional import linear

import fxpass

ROWS = 12
CONTRACTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mm": lambda k, e: torch.mm(k[:, :e], k[:e]),
    "addmm": lambda k, e: torch.addmm(k, k[:, :e], k[:e]),
    "einsum": lambda k, e: torch.einsum("ij,jk->ki", k[:, :e], k[:e]),
    "bmm": lambda k, e: torch.bmm(k.expand(2, -1, -1)[:, :, :e], k[:e].expand(2, -1, -1)),
    "linear": lambda k, e: linear(k.mT[:, :e], k[:, :e]),
    "of two lengths": lambda k, e: torch.mm(k[:, :e], k[:e]) + torch.mm(k[:, : e - 1], k[: e - 1]),
}


@torch.no_grad()
@pytest.mark.parametrize("name, compiler", [*((name, "eager") for name in CONTRACTIONS), ("addmm", "aot_eager")])
def test_two_slices_of_one_buffer_are_filled_each_for_itself(name: str, compiler: str) -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[p : p + 1] = x
        return CONTRACTIONS[name](k, p + 1)

    ours, theirs = torch.randn(ROWS, ROWS).expand(2, -1, -1).clone()
    fn = kvfix(step, compiler)
    for p in (4, 5, 6, 2, 9):
        x = torch.randn(1, ROWS)
        torch.testing.assert_close(fn(ours, x, p), step(theirs, x, p))
        assert torch.equal(ours, theirs)
    assert not fxpass.reports()[-1].refused
