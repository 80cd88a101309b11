"""What `kvfix reach` says of a step that is not in one static core."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpass
from fxpass.tools import reach


def one_core(x: Tensor, k: Tensor, at: int, w: Tensor, series: Tensor) -> Tensor:
    k[:, at : at + 1] = x
    return (x @ k[:, : at + 1].mT).softmax(-1) @ k[:, : at + 1] @ w


def before(x: Tensor, k: Tensor, at: int, w: Tensor, series: Tensor) -> Tensor:
    """A product over what grows, needed by all that follows."""
    return one_core(x + (series @ w).mean(1, keepdim=True), k, at, w, series)


def after(x: Tensor, k: Tensor, at: int, w: Tensor, series: Tensor) -> Tensor:
    out = one_core(x, k, at, w, series)
    return ((series + out) @ w).sum(1)


def attention_after(x: Tensor, k: Tensor, at: int, w: Tensor, series: Tensor) -> Tensor:
    out = one_core(x, k, at, w, series)
    return torch.nn.functional.scaled_dot_product_attention(out, series, series)


@dataclasses.dataclass
class Growing:
    """A case: beside the cache there is a series that is not its length, and grows."""

    step: Callable[..., Tensor]
    name = where = pattern = note = ""
    ours, graphs, breaks = True, 2, 0

    def steps(self, compiled: Any, device: str) -> Iterator[tuple[Tensor, list[Tensor]]]:
        torch.manual_seed(0)
        forward, k, w = compiled(self.step), torch.zeros(2, 16, 4), torch.rand(4, 4)
        for at in range(6):
            yield forward(torch.rand(2, 1, 4), k, at, w, torch.rand(2, 9 + 3 * at, 4)), [k.clone()]


@dataclasses.dataclass
class Forecasts(Growing):
    """Beside the cache there is a series, whose first ``prefix`` rows are scaled by. Prompts have other lengths and batches."""

    graphs = 4

    def steps(self, compiled: Any, device: str) -> Iterator[tuple[Tensor, list[Tensor]]]:
        torch.manual_seed(0)
        forward, w = compiled(forecast), torch.rand(4, 4)
        for batch, prefix in ((2, 5), (3, 5), (3, 8)):
            k = torch.zeros(batch, 24, 4)
            for at in (0, *range(prefix, prefix + 6)):
                series = torch.rand(batch, at + 1 if at else prefix, 4)
                yield forward(series, k, at, w, prefix), [k.clone()]


def forecast(series: Tensor, k: Tensor, at: int, w: Tensor, prefix: int) -> Tensor:
    scaled = series / series[:, :prefix].amax((1, 2), keepdim=True)
    new = scaled if at == 0 else scaled[:, -1:]
    k[:, at : at + new.shape[1]] = new
    keys = k[:, : at + new.shape[1]]
    return (new @ keys.mT).softmax(-1) @ keys @ w


OUTSIDE = [before, after]


@pytest.mark.parametrize("step", [one_core, attention_after])
def test_one_core_is_said(step: Callable[..., Tensor]) -> None:
    row = reach.run(Growing(step))
    assert row.core == "one" and row.problems == []
    assert ("L['at']", "position") in row.kinds


def test_a_prefill_of_another_size_is_no_step() -> None:
    row = reach.run(Forecasts(one_core))
    assert row.core == "one" and row.problems == []


@pytest.mark.parametrize("step", OUTSIDE)
def test_what_is_outside_is_said(step: Callable[..., Tensor]) -> None:
    """The op, the line and what keeps it there; no number is wrong."""
    row = reach.run(Growing(step))
    assert row.core.startswith("outside: ") and row.core in row.problems
    assert "L['series'].size()[1]" in row.core and "test_reach_tables.py" in row.core
    assert row.outputs < 1e-6


@pytest.mark.parametrize("step", OUTSIDE)
def test_strict_raises_where_work_is_left_outside(step: Callable[..., Tensor]) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    k, w = torch.zeros(2, 16, 4), torch.rand(4, 4)
    with pytest.raises(Exception, match=r"KvfixError: .*\n.*\n?.*series\.size\(\)\[1\]"):
        for at in range(6):
            compiled(torch.rand(2, 1, 4), k, at, w, torch.rand(2, 9 + 3 * at, 4))


def test_strict_takes_what_is_in_one_core() -> None:
    compiled = torch.compile(one_core, backend="kvfix", options={"compiler": "eager", "strict": True})
    k, w = torch.zeros(2, 16, 4), torch.rand(4, 4)
    for at in range(6):
        compiled(torch.rand(2, 1, 4), k, at, w, torch.rand(2, 9, 4))
    assert [static for _, static, _ in fxpass.reports()[-1].parts][-1]
