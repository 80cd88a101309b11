"""What Python makes of a number that moves, in value and type, where Dynamo makes another number, or fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass

GUARDED: dict[str, Callable[[int], Any]] = {
    "negative": lambda p: -(p > 4),
    "size": lambda p: abs(p > 4),
    "power": lambda p: (p > 4) ** 2,
    "quotient": lambda p: (p > 4) / 2,
    "whole quotient": lambda p: (p > 4) // 1,
    "remainder": lambda p: divmod(p > 4, 2),
    "shifted": lambda p: (p > 4) << 2,
    "bits": lambda p: 1 & (p > 4),
    "bits of truths": lambda p: (p > 4) & (p < 9),
    "larger": lambda p: max(p, 4.5),
    "smaller": lambda p: min(4.5, p),
    "of a list": lambda p: max([p, 4.5, 1]),
    "of three": lambda p: min(p, 4.5, 20),
    "with a half": lambda p: max(p / 2, 2),
    "formatted": lambda p: (format(p > 4), len(format(p > 4))),
    "below nan": lambda p: p < math.nan,
    "between zero and nan": lambda p: 0 <= p < math.nan,
    "nan is no more": lambda p: math.nan >= p,
    "another number than nan": lambda p: (p != math.nan, p == math.nan),
    "half of it beside nan": lambda p: p / 2 > math.nan,
    "truth beside nan": lambda p: (p > 4) <= math.nan,
    "larger with nan": lambda p: max(p, math.nan, p + 1),
    "smaller with nan": lambda p: min([p, 4.5, math.nan]),
    "nan first": lambda p: str(max(math.nan, p)),
}
PINNED: dict[str, Callable[[int], Any]] = {
    "rounded to tens": lambda p: round(p, -1),
    "formatted": lambda p: format(p),
}


class Step(torch.nn.Module):
    """In stock, an int of a module is a constant of each graph, of which Python makes what it does."""

    def __init__(self, made: Callable[[int], Any]) -> None:
        super().__init__()
        self.p, self.made = 0, made
        self.register_buffer("k", torch.zeros(2, 16))

    def forward(self, x: Tensor) -> tuple[Any, Tensor]:
        self.k[:, self.p : self.p + x.shape[1]] = x
        made = self.made(self.p)
        self.p += x.shape[1]
        return made, self.k[:, : self.p].mean(1)


def check(made: Callable[[int], Any]) -> None:
    """A prompt of three rows and four steps beside eager."""
    ours, theirs = Step(made), Step(made)
    compiled = torch.compile(ours, backend="kvfix", options={"compiler": "eager"})
    for n in (3, 1, 1, 1, 1):
        x = torch.rand(2, n)
        (got, mean), (wanted, other) = compiled(x), theirs(x)
        torch.testing.assert_close(mean, other)
        assert got == wanted and type(got) is type(wanted)
    assert not counters["graph_break"] and not any(report.faults for report in fxpass.reports())


@torch.no_grad()
@pytest.mark.parametrize("name", GUARDED)
def test_what_decides_is_guarded(name: str) -> None:
    check(GUARDED[name])
    assert counters["stats"]["unique_graphs"] <= 3


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", PINNED)
def test_what_has_no_symbol_has_a_graph_for_each_value(name: str) -> None:
    check(PINNED[name])
