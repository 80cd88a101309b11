"""Sums and running sums that are cut into chunks are those of whole rows."""

from __future__ import annotations

import pytest
import torch
from graphs import traced
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from fxpass.kernels.for_inductor.long_rows import CHUNK, cut_long_rows
from fxpass.kernels.launches import limits

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICES", {"cpu"})


def cut(gm: fx.GraphModule) -> bool:
    before = len(gm.graph.nodes)
    cut_long_rows(gm.graph)
    gm.recompile()
    return len(gm.graph.nodes) > before


def rows(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(len(shape))
    return (torch.randn(shape, dtype=torch.float64) * 9).to(dtype)


def sums(x: Tensor) -> tuple[Tensor, ...]:
    total = x.cumsum(-1)
    return total, ((x - total) * x).cumsum(x.dim() - 1), x.sum(-1), (x * total).sum(-1, keepdim=True)


@pytest.mark.parametrize(
    "x",
    [
        rows(7, 2048), rows(2100), rows(1, 3, 2049), rows(2, 3, 4095, dtype=torch.float32), rows(3, 2304, dtype=torch.int64),
        rows(2, 2048, dtype=torch.int32), rows(2, 2048) > 0, rows(2500, 3).t(),
    ],
    ids=lambda x: f"{tuple(x.shape)}-{x.dtype}",
)  # fmt: skip
def test_sums_are_those_of_whole_rows(x: Tensor) -> None:
    def step(x: Tensor) -> tuple[Tensor, ...]:
        return sums(x) if x.dtype != torch.bool else (x.cumsum(-1), x.sum(-1))

    gm = traced(step, [x])
    assert cut(gm)
    for ours, theirs in zip(gm(x), step(x), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.stride() == theirs.contiguous().stride()
        scale = 1 if not theirs.is_floating_point() else theirs.abs().max()
        bound = {torch.float64: 1e-13, torch.float32: 1e-5}.get(theirs.dtype, 0)
        assert (ours - theirs).abs().max() <= bound * scale


def test_what_comes_after_a_value_does_not_reach_it() -> None:
    x = rows(3, 8 * CHUNK + 7)
    x[0, 1000], x[1, CHUNK - 1], x[2, 5 * CHUNK] = float("nan"), float("inf"), float("-inf")
    gm = traced(lambda x: (x.cumsum(-1), x.sum([-1])), [x])
    assert cut(gm)
    for ours, theirs in zip(gm(x), (x.cumsum(-1), x.sum([-1])), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_of_any_length() -> None:
    gm = make_fx(sums, tracing_mode="symbolic", _allow_non_fake_inputs=True)(rows(3, 2600))
    assert cut(gm)
    for length in (2600, 2048, 9 * CHUNK, 40, 1):
        x = rows(3, length)
        for ours, theirs in zip(gm(x), sums(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(
    "step, x",
    [
        (lambda x: (x.cumsum(-1),), rows(3, 2047)),
        (lambda x: (x.cumsum(-1),), rows(33, 2048)),
        (lambda x: (x.cumsum(0), x.sum(0), x.sum(), x.sum([0, 1])), rows(4096, 3)),
        (lambda x: (x.cumsum(-1),), rows(2, 4096, dtype=torch.bfloat16)),
    ],
    ids=["short", "many", "along another dim", "halves"],
)
def test_others_stay(step, x: Tensor) -> None:
    assert not cut(traced(step, [x]))
