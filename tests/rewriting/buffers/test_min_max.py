"""A minimum or maximum is taken to be one of its operands only where a buffer comes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass

SIZE, WIDTH = 16, 4

WINDOWS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "from the greater": lambda k, s, e: k[:, max(0, e - WIDTH) : e].sum(1),
    "the lesser at the end": lambda k, s, e: k[:, -min(WIDTH, e) :].sum(1),
    "narrowed": lambda k, s, e: k.narrow(1, max(s - WIDTH, 0), min(WIDTH, s)).sum(1),
    "added": lambda k, s, e: k[:, :e].sum(1) + min(WIDTH, e),
    "of rows alone": lambda k, s, e: k[:, : min(WIDTH, e - s)].sum(1),
    "turned": lambda k, s, e: k.transpose(0, 1)[max(0, e - WIDTH) : e].sum(0),
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", list(WINDOWS))
def test_a_window_of_a_fixed_cache_fills_in_the_graph_in_which_it_is_full(name: str) -> None:
    def step(x: Tensor, k: Tensor, p: int) -> Tensor:
        e = p + x.shape[1]
        k[:, p:e] = x
        return WINDOWS[name](k, p, e)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, p = torch.zeros(2, SIZE, 3), 0
    eager = mine.clone()
    for n in (1, 2, 2, 3, 2, 2):
        x = torch.randn(2, n, 3)
        torch.testing.assert_close(compiled(x, mine, p), step(x, eager, p))
        assert torch.equal(mine, eager)
        p += n
    assert not any(report.unfit for report in fxpass.reports())
    assert counters["stats"]["unique_graphs"] == 2
