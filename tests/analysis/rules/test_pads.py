"""Rows that are padded by a position, up to a number that stays: what comes of it has no valid part, all of it is valid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

ROWS = 90
PADS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "behind": lambda k, v, e: pad(k[:, :e], (0, 0, 0, ROWS - e)) - v,
    "before, as many as the cache has": lambda k, v, e: pad(k[:, :e], (0, 0, k.shape[1] - e, 0), value=2.0) * v,
    "on both sides": lambda k, v, e: pad(k[:, :e].mT, (e, 95 - 2 * e, 1, 1)).cumsum(2),
    "taken away in front": lambda k, v, e: pad(k[:, :e], (0, 0, 3 - e, 0)),
    "by the last row": lambda k, v, e: pad(k[:, :e].mT, (2, ROWS - e), mode="replicate"),
    "a bias": lambda k, v, e: sdpa(v, v, v, pad(k[:, :e, 0], (0, ROWS - e), value=-torch.inf)[:, None]),
    "and sliced again": lambda k, v, e: pad(k[:, :e], (0, 0, 0, ROWS - e))[:, : e + 1].amax(1),
}


@torch.no_grad()
@pytest.mark.parametrize("name, compiler", [*((name, "eager") for name in PADS), ("behind", "aot_eager")])
def test_padded_by_a_position(name: str, compiler: str) -> None:
    def step(k: Tensor, v: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1], v[:, p : p + 1] = x, x * 2
        return PADS[name](k, v, p + 1)

    fn = kvfix(step, compiler)
    ours, theirs = torch.rand(2, ROWS, 4).repeat(2, 2, 1, 1).unflatten(1, (2, 2))
    for p in (7, 8, 9, 40, 3):
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(fn(*ours, x, p), step(*theirs, x, p))
        assert torch.equal(ours, theirs)
    assert not (fxpass.reports()[-1].refused or fxpass.reports()[-1].outside)
