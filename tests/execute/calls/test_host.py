"""What is the same in all steps is decided once: a step calls few functions of this package, however many layers there are."""

from __future__ import annotations

import pathlib
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from small_models import kvfix
from torch import Tensor

import fxpass

HERE = str(pathlib.Path(fxpass.__file__).parent)
MOST, MOST_OF_A_FORECAST = 19, 45
NOT_COUNTED = {"<listcomp>", "<genexpr>", "asked"}
"""Parts of a function, and what Dynamo's bytecode calls for each size of an input, of torch's or of ours."""


def step(x: Tensor, caches: list[Tensor], pos: int) -> tuple[Tensor, ...]:
    for cache in caches:
        cache[:, pos : pos + 1] = x
        x = x + cache[:, : pos + 1].sum(1, keepdim=True)
    return x, *(cache.index_fill_(1, torch.tensor([0]), 1.0) for cache in caches)


def forecast(series: Tensor, caches: list[Tensor], index: Tensor) -> tuple[Tensor, ...]:
    """A series that is longer on each call, of which the last values go through the layers, each with a number of its own."""
    scaled = series / series.abs().mean(-1, keepdim=True)
    x = scaled[:, -4:].unsqueeze(1)
    for i, cache in enumerate(caches):
        pos = int(index[i])
        cache[:, pos : pos + 1] = x
        x = x + cache[:, : pos + 1].sum(1, keepdim=True)
    index += 1
    return x, scaled


def calls_of(run: Callable[[int], object], steps: int) -> Counter[str]:
    """How often the last of so many steps calls each function of this package."""
    called = Counter[str]()

    def see(frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(HERE) and code.co_name not in NOT_COUNTED:
            called[f"{pathlib.Path(code.co_filename).name}:{code.co_firstlineno} {code.co_name}"] += 1

    for i in range(steps):
        if i == steps - 1:
            sys.setprofile(see)
        try:
            run(i)
        finally:
            sys.setprofile(None)
    return called


def calls_of_a_step(layers: int) -> Counter[str]:
    """Those of a step, once nothing is compiled any more."""
    run, caches = kvfix(step), [torch.zeros(1, 16, 4) for _ in range(layers)]
    called = calls_of(lambda pos: run(torch.ones(1, 1, 4), caches, pos), 8)
    assert fxpass.reports()[-1].rewritten == 2 * layers
    return called


def calls_of_a_forecast(layers: int) -> Counter[str]:
    """Those of a step whose series lies in a buffer, and whose positions are elements of a tensor."""
    run, caches, index = kvfix(forecast), [torch.zeros(1, 16, 4) for _ in range(layers)], torch.zeros(layers, dtype=torch.long)
    called = calls_of(lambda i: run(torch.ones(1, 8 + 4 * i), caches, index), 10)
    report = fxpass.reports()[-1]
    assert [name for name, *_ in report.parts] == ["core"] and not report.unbuffered
    return called


@torch.no_grad()
@pytest.mark.parametrize("recorded", [False, True])
def test_a_step_costs_the_same_for_more_layers(recorded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxpass.backend.is_recorded", lambda *given: recorded)
    few, many = (calls_of_a_step(layers) for layers in (2, 4))
    assert few == many and sum(few.values()) <= MOST, many


@torch.no_grad()
def test_a_step_whose_series_grows_costs_the_same_for_more_layers() -> None:
    """The mirror is asked by the guards, by Dynamo's bytecode, and for what comes next; all numbers are worked out at once, but
    for a sum of each layer: where the layer's own index goes on."""
    few, many = (calls_of_a_forecast(layers) for layers in (2, 4))
    more = many - few
    assert {name.partition(":")[0] for name in more} == {"functions.py"} and sum(more.values()) == 2 * 2
    assert sum(few.values()) <= MOST_OF_A_FORECAST, many
