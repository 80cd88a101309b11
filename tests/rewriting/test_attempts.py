"""An attempt that refuses what a decomposition has made leaves that operator whole: the attempts come to an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import fxpass
from fxpass.rewriting.attempts import Attempts

pytestmark = pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")

FINISHES: dict[str, Callable[[Tensor], Any]] = {
    "a row of it": lambda k: interpolate(k.mT, scale_factor=2, mode="nearest")[..., -1],
    "a row of the exact one": lambda k: interpolate(k.mT, scale_factor=2, mode="nearest-exact")[..., -1],
    "rows of it": lambda k: interpolate(k.mT, scale_factor=2, mode="nearest")[..., 1:],
    "all of it": lambda k: interpolate(k.mT, scale_factor=3, mode="nearest"),
    "of two dims": lambda k: interpolate(k[:, None], scale_factor=2, mode="nearest")[..., -1, :],
    "beside its rows": lambda k: (interpolate(k.mT, scale_factor=2, mode="nearest")[..., -1], k.sum(1)),
}


@torch.no_grad()
@pytest.mark.parametrize("name", FINISHES)
def test_attempts_come_to_an_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    decomposed = Attempts.decomposed

    def counted(self: Attempts, *args: Any) -> bool:
        nonlocal calls
        calls += 1
        if calls > 50:
            pytest.fail("an operator is decomposed again and again")
        return decomposed(self, *args)

    monkeypatch.setattr(Attempts, "decomposed", counted)
    ours, theirs = torch.zeros(2, 16, 4), torch.zeros(2, 16, 4)

    def step(k: Tensor, x: Tensor, p: int) -> Any:
        k[:, p : p + x.shape[1]] = x
        return FINISHES[name](k[:, : p + x.shape[1]])

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    p = 0
    for n in (4, 1, 1, 1):
        x = torch.rand(2, n, 4)
        torch.testing.assert_close(compiled(ours, x, p), step(theirs, x, p))
        torch.testing.assert_close(ours, theirs)
        p += n
    assert calls and not any(report.unfit for report in fxpass.reports())
