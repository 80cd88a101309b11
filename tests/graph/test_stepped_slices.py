"""Slices at a position that take every so many rows."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass

Read = Callable[[Tensor, Tensor, int], Tensor]

READS: dict[str, Read] = {
    "from the first row": lambda k, x, p: k[:, : p + 1 : 2].sum(1),
    "from the second": lambda k, x, p: k[:, 1 : p + 1 : 3].cumsum(1).sum(1),
    "from a moving row": lambda k, x, p: k[:, p % 2 : p + 1 : 3].amax(1),
    "a fixed number": lambda k, x, p: k[:, p // 2 : p // 2 + 4 : 3].sum(1),
    "attended to": lambda k, x, p: (x @ k[:, : p + 1 : 2].mT).softmax(-1) @ k[:, : p + 1 : 2],
    "written, a fixed number": lambda k, x, p: k[:, p : p + 3 : 2].fill_(7).new_zeros(1),
    "all but the last": lambda k, x, p: k.mT[..., :-p:2].sum(-1),
}


@torch.no_grad()
def check(read: Read) -> fxpass.Report:
    def step(k: Tensor, x: Tensor, p: int) -> tuple[Tensor, Tensor]:
        k[:, p : p + 1] = x
        return read(k, x, p), k[:, : p + 1].sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.full((2, 2, 12, 4), 0.5)
    for p in range(2, 6):
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(mine, x, p), step(eager, x, p))
        torch.testing.assert_close(mine, eager)
    return fxpass.reports()[-1]


@pytest.mark.parametrize("name", READS)
def test_is_rewritten(name: str) -> None:
    report = check(READS[name])
    assert (report.rewritten >= 3, report.refused, report.outside) == (True, 0, [])
    assert [part[1] for part in report.parts].count(True) == 1


def test_a_moving_number_that_is_written_is_refused_by_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fxpass.KvfixWarning)
        report = check(lambda k, x, p: k[:, : p + 1 : 2].mul_(2).new_zeros(1))
    assert [site.reason[:5] for site in report.sites if site.reason] == ["KV110"]
