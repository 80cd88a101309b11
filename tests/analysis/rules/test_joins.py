"""Joined rows that grow faster than the cache they come from: no condition that soon fails, so no graph more than stock's. Rows
that make as many at any position are an axis like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

JOINS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "both halves": lambda k, v, x: torch.cat([k, v], 1).sum(1),
    "itself": lambda k, v, x: torch.cat([k, k], 1).amax(1),
    "thrice": lambda k, v, x: torch.cat([k, v, k], 1).mean(1),
    "with new rows between": lambda k, v, x: torch.cat([k, x, v], 1).cumsum(1)[:, -1] * 2,
    "softmax over both": lambda k, v, x: torch.cat([k, v], 1).softmax(1).amax(1),
    "with new rows": lambda k, v, x: torch.hstack([k, x]).sum(1),
    "with a row more": lambda k, v, x: torch.cat([x[:, :1], k], 1).amax(1),
    "repeated": lambda k, v, x: torch.cat([k] * 2 + [v] * 2, 1).var(1, correction=0),
    "attention over both": lambda k, v, x: sdpa(x, torch.cat([k, v], 1), torch.cat([v, k], 1)),
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


WHOLE: dict[str, Callable[[Tensor, Tensor, Tensor, Any], Tensor]] = {
    "rotated": lambda k, v, x, e: sdpa(x, *[torch.cat([t[:, :, e:12], t[:, :, :e]], 2) for t in (k, v)]),
    "filled up": lambda k, v, x, e: torch.cat([k[:, :, :e], k.new_zeros(2, 2, 12 - e, 4)], 2).mean(2),
    "filled up with a row": lambda k, v, x, e: torch.cat([k[:, :, :e], x[:, :, -1:].expand(-1, -1, 12 - e, -1)], 2).sum(2),
    "with rows between": lambda k, v, x, e: torch.cat([k[:, :, e:12], v[:, :, :2], v[:, :, 1:e]], 2).cumsum(2),
    "a result": lambda k, v, x, e: torch.cat([k[:, :, e:12], k[:, :, :e]], 2),
    "put back": lambda k, v, x, e: v.copy_(torch.cat([k[:, :, e:12], k[:, :, :e]], 2)).sum(2),
    "in two parts": lambda k, v, x, e: torch.cat([k[:, :, e:12], k[:, :, :e]], 2).reshape(2, 2, 3, 4, 4).sum(3),
    "beside a buffer": lambda k, v, x, e: torch.stack([torch.cat([k[:, :, e:12], k[:, :, :e]], 2), v], 2).amax(3),
}


@torch.no_grad()
@pytest.mark.parametrize(
    "join, compiler", [*((join, "eager") for join in WHOLE), ("filled up", "aot_eager"), ("put back", "aot_eager")]
)
def test_as_many_rows_at_any_position(join: str, compiler: str) -> None:
    """All of them are valid, so nothing that takes them needs a rule."""

    def step(k: Tensor, v: Tensor, x: Tensor, at: Tensor) -> Tensor:
        e = int(at[0]) + x.shape[2]
        k[:, :, int(at[0]) : e], v[:, :, int(at[0]) : e] = x, x * 2
        at += x.shape[2]
        return WHOLE[join](k, v, x, e)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    ours, theirs = ([torch.ones(2, 2, 12, 4), torch.ones(2, 2, 12, 4), torch.zeros(1, dtype=torch.int64)] for _ in range(2))
    for n in (3, 1, 1, 1):
        x = torch.rand(2, 2, n, 4)
        torch.testing.assert_close(compiled(*ours[:2], x, ours[2]), step(*theirs[:2], x, theirs[2]))
        torch.testing.assert_close(ours, theirs)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    assert all(site.decision == "rewritten" for report in fxpass.reports() for site in report.sites)
