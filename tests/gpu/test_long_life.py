"""Many forecasts on a GPU: memory is flat, recordings are bounded, what is dropped is let go. ``python -m tests.lifetime
--device cuda --compiler inductor`` runs the same, and writes down what it finds."""

from __future__ import annotations

import gc

import pytest
import torch
from lifetime import runs
from lifetime.__main__ import bounded, flat, gone

import fxpass
from fxpass.tools.counting import recordings

pytestmark = pytest.mark.gpu


def test_five_hundred_forecasts_leave_nothing_behind() -> None:
    left = runs.in_a_row(500, "cuda", "inductor")
    flat(left)
    assert left[-1].recordings == left[0].recordings > 0, left


def test_a_thousand_random_forecasts_with_eager_calls_in_between() -> None:
    left = runs.at_random(1000, "cuda", "inductor")
    bounded(left)
    assert left[-1].recordings > 0, left


def test_what_is_dropped_is_let_go() -> None:
    gone(runs.dropped("cuda", "inductor"))


class Wide(torch.nn.Module):
    """A product of more rows than are ours, which cuBLAS computes in the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.nn.Linear(64, 64)

    def forward(self, cache: torch.Tensor, x: torch.Tensor, pos: int) -> torch.Tensor:
        cache[:, pos : pos + 1] = self.out(x)
        return cache[:, : pos + 1].sum(1)


@torch.no_grad()
def test_a_model_is_recorded_after_another_one_has_gone() -> None:
    """What cuBLAS works in outlives the recording, and lies in its memory pool, which PyTorch gives up."""
    for _ in range(3):
        model = Wide().cuda()
        compiled, x = torch.compile(model, backend="kvfix"), torch.randn(96, 1, 64, device="cuda")
        found, wanted = (torch.zeros(96, 16, 64, device="cuda") for _ in range(2))
        for pos in range(8):
            torch.testing.assert_close(compiled(found, x, pos), model(wanted, x, pos))
        assert recordings() >= 1
        del compiled, model
        torch._dynamo.reset()
        fxpass.reset()
        gc.collect()
        assert not recordings()
