"""Index tensors whose size is a symbol: another number of rows is another graph, and no break."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass


def appended(x: Tensor, k: Tensor, lens: Tensor, start: int | Tensor) -> Tensor:
    end = start + x.shape[1]
    k[:, start:end] = x
    lens += x.shape[1]
    return k[:, :end].sum(1)


def first(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    return appended(x, k, lens, int(lens[0]))


def last_as_a_tensor(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    return appended(x, k, lens, lens[-1])


def longest(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    return appended(x, k, lens, int(lens.max()))


def listed(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    return appended(x, k, lens, lens.tolist()[0])


def asked(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    if not torch.all(lens == lens[0]) or (lens > 20).any():
        return x.sum(1)
    return appended(x, k, lens, int(lens[0])) + lens.numel()


def decode(compiled: Callable[..., Tensor], step: Callable[..., Tensor], rows: int) -> None:
    """A prompt and two steps, each compared with eager, the buffers too."""
    k, lens = torch.zeros(rows, 16, 4), torch.zeros(rows, dtype=torch.int64)
    other, others = k.clone(), lens.clone()
    for n in (4, 1, 1):
        x = torch.rand(rows, n, 4)
        torch.testing.assert_close(compiled(x, k, lens), step(x, other, others))
        assert torch.equal(k, other) and torch.equal(lens, others)


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("step", [first, last_as_a_tensor, longest, listed, asked])
def test_another_number_of_rows_breaks_nothing(step: Callable[..., Tensor], dynamic: bool | None) -> None:
    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"}, dynamic=dynamic)
    for rows in (2, 3, 5):
        decode(compiled, step, rows)
        report = fxpass.reports()[-1]
        assert report.rewritten == 2 and [name for name, _, _ in report.parts if name != "prologue"] == ["core"]
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 6


@pytest.mark.parametrize("step", [first, longest])
def test_many_numbers_of_rows_stay_within_the_limit(step: Callable[..., Tensor]) -> None:
    """All that come later share graphs that break, as in stock."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for rows in (2, 3, 5, 7, 6, 4, 3):
            decode(compiled, step, rows)
