"""Joined rows that grow faster than the cache they come from: no condition that soon fails, so no graph more than stock's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass

JOINS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "both halves": lambda k, v, x: torch.cat([k, v], 1).sum(1),
    "itself": lambda k, v, x: torch.cat([k, k], 1).amax(1),
    "thrice": lambda k, v, x: torch.cat([k, v, k], 1).mean(1),
    "with new rows between": lambda k, v, x: torch.cat([k, x, v], 1).cumsum(1)[:, -1] * 2,
    "softmax over both": lambda k, v, x: torch.cat([k, v], 1).softmax(1).amax(1),
    "repeated": lambda k, v, x: torch.cat([k] * 2 + [v] * 2, 1).var(1, correction=0),
    "attention over both": lambda k, v, x: torch.nn.functional.scaled_dot_product_attention(
        x, torch.cat([k, v], 1), torch.cat([v, k], 1)
    ),
}


def run(join: Callable[..., Tensor], start: Callable[[Tensor, int], Any], **how: Any) -> int:
    """The number of graphs and breaks of a cache filled up, each call compared with eager."""

    def step(k: Tensor, v: Tensor, x: Tensor, at: Tensor, p: int) -> Tensor:
        s = start(at, p)
        e = s + x.shape[1]
        k[:, s:e], v[:, s:e] = x, x * 2
        at += x.shape[1]
        return join(k[:, :e], v[:, :e], x)

    counters.clear()
    torch._dynamo.reset()
    fxpass.reset()
    compiled = torch.compile(step, **how)
    ours, theirs = (torch.full((2, 2, 12, 4), float("nan")) for _ in range(2))
    at, i = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for n in (3, *[1] * 7):
        x, p = torch.rand(2, n, 4), int(i[0])
        wanted = step(*theirs, x, i, p)
        torch.testing.assert_close(compiled(*ours, x, at, p), wanted)
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    return counters["stats"]["unique_graphs"] + sum(counters["graph_break"].values())


@pytest.mark.parametrize("start", [lambda at, p: p, lambda at, p: int(at[0])], ids=["argument", "element"])
@pytest.mark.parametrize("join", JOINS)
@torch.no_grad()
def test_no_graph_more(join: str, start: Callable[[Tensor, int], Any]) -> None:
    assert run(JOINS[join], start, backend="kvfix", options={"compiler": "eager"}) == 2
    assert all(site.decision == "rewritten" for report in fxpass.reports() for site in report.sites)
