"""Floats that move are 0-d tensors in the core, and no step is compiled for their values."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

Step = Callable[[Tensor, Tensor, int, float], Tensor]


def attended(k: Tensor, x: Tensor, p: int) -> Tensor:
    k[:, p : p + 1] = x
    return sdpa(x, k[:, : p + 1], k[:, : p + 1])


STEPS: dict[str, Step] = {
    "divided by": lambda k, x, p, f: (attended(k, x, p) / f).softmax(-1),
    "before the cache": lambda k, x, p, f: attended(k, x * f, p),
    "computed with": lambda k, x, p, f: attended(k, x + (1 + f) ** 2, p) - f / 2,
    "taken from": lambda k, x, p, f: f - attended(k, x, p),
    "a power": lambda k, x, p, f: attended(k, x, p).abs() ** f,
    "compared with": lambda k, x, p, f: attended(k, x, p) * (x > f / 10),
    "filled with": lambda k, x, p, f: attended(k, x, p).masked_fill(x > 0.5, f),
    "beside integers": lambda k, x, p, f: attended(k, x, p) + torch.arange(4) * f,
    "beside one number": lambda k, x, p, f: attended(k, x, p) * (x.sum() * f),
    "in place": lambda k, x, p, f: attended(k, x, p).mul_(f).add_(f),
    "clamped": lambda k, x, p, f: attended(k, x, p).clamp(f / 9, f / 3) - x.clamp(max=f / 3).clamp_(f / 9),
    "by other operators": lambda k, x, p, f: torch.where(x > 0.5, (f**x).lerp(attended(k, x, p), f / 9), f).fmod(f),
    "with a factor": lambda k, x, p, f: torch.add(attended(k, x, p), f, alpha=2),
    "with the position": lambda k, x, p, f: attended(k, x, p) * (p * f),
}
OUTSIDE = ("with a factor", "with the position")


def decode(step: Step, compiler: str, dtype: torch.dtype = torch.float32) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    mine, eager = (torch.zeros(2, 16, 4, dtype=dtype) for _ in range(2))
    for p in range(1, 12):
        x, f = torch.rand(2, 1, 4, dtype=dtype), 1 + p / 16
        torch.testing.assert_close(compiled(mine, x, p, f), step(eager, x, p, f))
        assert torch.equal(mine, eager)


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", list(STEPS))
def test_a_float_that_moves_stays_in_the_core(name: str, compiler: str, compiled_parts: list[str]) -> None:
    decode(STEPS[name], compiler)
    report = fxpass.reports()[-1]
    assert len(compiled_parts) <= 4 and counters["stats"]["unique_graphs"] == 2
    assert [n for n, *_ in report.parts] == ["prologue", "core"] or name in OUTSIDE


@torch.no_grad()
@pytest.mark.parametrize("name", ["divided by", "before the cache", "compared with", "in place"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(name: str, dtype: torch.dtype, compiled_parts: list[str]) -> None:
    decode(STEPS[name], "eager", dtype)
    assert len(compiled_parts) <= 4


@torch.no_grad()
@pytest.mark.inductor
def test_behind_inductor(compiled_parts: list[str]) -> None:
    decode(STEPS["divided by"], "inductor")
    assert len(compiled_parts) <= 3
