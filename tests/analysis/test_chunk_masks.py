"""Chunks of any length on a cache that is filled already, under masks of the chunk's size by that of what is valid."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass

sdpa = torch.nn.functional.scaled_dot_product_attention
WHOLE = torch.ones(32, 32, dtype=torch.bool).tril()

MASKS: dict[str, Callable[[int, int], Tensor]] = {
    "compared": lambda s, e: torch.arange(e)[None] <= torch.arange(s, e)[:, None],
    "expanded": lambda s, e: (torch.arange(e)[None] <= torch.arange(s, e)[:, None])[None].expand(2, -1, -1),
    "added to": lambda s, e: torch.arange(e)[None] <= (torch.arange(e - s) + s)[:, None],
    "float": lambda s, e: torch.zeros(e - s, e).masked_fill(
        torch.arange(e)[None] > torch.arange(s, e)[:, None], float("-inf")
    ),
    "tril": lambda s, e: torch.ones(e - s, e, dtype=torch.bool).tril(s),
    "triu": lambda s, e: torch.full((e - s, e), float("-inf")).triu(s + 1),
    "cut from one": lambda s, e: WHOLE[s:e, :e],
    "cut from one and turned": lambda s, e: ~WHOLE.mT[:e, s:e].mT.logical_not(),
    "window": lambda s, e: (torch.arange(e) - torch.arange(s, e)[:, None]).abs() < 4,
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", list(MASKS))
def test_chunks_under_a_mask(name: str) -> None:
    def step(x: Tensor, k: Tensor, s: int) -> Tensor:
        e = s + x.shape[1]
        k[:, s:e] = x
        return sdpa(x, k[:, :e], k[:, :e], attn_mask=MASKS[name](s, e))

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for n, s in ((6, 0), (4, 3), (4, 4), (4, 5), (4, 9), (2, 13), (3, 15)):
        x, mine = torch.rand(2, n, 8), torch.rand(2, 32, 8)
        eager = mine.clone()
        torch.testing.assert_close(compiled(x, mine, s), step(x, eager, s))
        assert torch.equal(mine, eager)
    assert not any(report.unfit for report in fxpass.reports())
    assert counters["stats"]["unique_graphs"] <= 3
