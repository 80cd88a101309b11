"""What is the same in all steps is decided once: a step calls few functions of this package, however many layers there are."""

from __future__ import annotations

import pathlib
import sys
from collections import Counter
from types import FrameType
from typing import Any

import pytest
import torch
from small_models import kvfix
from torch import Tensor

import fxpass

HERE = str(pathlib.Path(fxpass.__file__).parent)
MOST = 30


def step(x: Tensor, caches: list[Tensor], pos: int) -> tuple[Tensor, ...]:
    for cache in caches:
        cache[:, pos : pos + 1] = x
        x = x + cache[:, : pos + 1].sum(1, keepdim=True)
    return x, *(cache.index_fill_(1, torch.tensor([0]), 1.0) for cache in caches)


def calls_of_a_step(layers: int) -> Counter[str]:
    """How often a step calls each function of this package, once nothing is compiled any more."""
    run, caches, called = kvfix(step), [torch.zeros(1, 16, 4) for _ in range(layers)], Counter[str]()

    def see(frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HERE) and code.co_name not in ("<listcomp>", "<genexpr>"):
            called[f"{pathlib.Path(code.co_filename).name}:{code.co_firstlineno} {code.co_name}"] += 1

    for pos in range(8):
        if pos == 7:
            sys.setprofile(see)
        try:
            run(torch.ones(1, 1, 4), caches, pos)
        finally:
            sys.setprofile(None)
    assert fxpass.reports()[-1].rewritten == 2 * layers
    return called


@torch.no_grad()
@pytest.mark.parametrize("recorded", [False, True])
def test_a_step_costs_the_same_for_more_layers(recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxpass.backend.is_recorded", lambda *given: recorded)
    few, many = (calls_of_a_step(layers) for layers in (2, 4))
    assert few == many and sum(few.values()) <= MOST, many
