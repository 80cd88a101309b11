"""Numbers are printed as a user writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpass

AS_WRITTEN: dict[str, Callable[[int], Any]] = {
    "p % 6 + 1": lambda p: p % 6 + 1,
    "p // 2": lambda p: p // 2,
    "(p + 1) // 2": lambda p: (p + 1) // 2,
    "12 // (p // 4)": lambda p: 12 // (p // 4),
    "math.ceil(p / 4)": lambda p: math.ceil(p / 4),
    "int(math.sqrt(float(p)))": lambda p: int(math.sqrt(p)),
    "round(0.5*float(p))": lambda p: round(p * 0.5),
    "min(9, p)": lambda p: min(p, 9),
}


@torch.no_grad()
@pytest.mark.parametrize("written", AS_WRITTEN)
def test_the_position_is_a_text_of_python(written: str) -> None:
    """It can be evaluated, and gives the number itself."""

    def step(k: Tensor, p: int) -> Tensor:
        return k[:, : AS_WRITTEN[written](p)].sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for p in (8, 9):
        compiled(torch.ones(2, 16), p)
    report = fxpass.reports()[-1]
    read = next(site for site in report.sites if site.kind == "read")
    (symbol,) = {symbol.symbol for symbol in report.symbols if symbol.of.endswith("['p']")}
    for p in (8, 9, 11):
        assert eval(read.position, {symbol: p, "math": math}) == AS_WRITTEN[written](p), read.position
