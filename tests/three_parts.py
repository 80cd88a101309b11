"""A step of three parts, and a comparison of it with eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def step(k: Tensor, index: Tensor, x: Tensor, series: Tensor) -> tuple[Tensor, Tensor]:
    """A prologue that grows, a core that writes, an epilogue that grows. The series gets no buffer, since it is written."""
    series /= series.sum()
    start = int(index[0])
    k[:, start : start + 1] = x * series.mean()
    index += 1
    out = k[:, : start + 1].sum(1)
    return out, series * out.sum()


def decode(compiled: Callable[..., Any], capacities: tuple[int, ...] = (8,), steps: int = 5) -> None:
    """Each call compared with eager, the buffers too."""
    for capacity in capacities:
        k, index = torch.zeros(2, capacity), torch.zeros(2, dtype=torch.long)
        mine, at = k.clone(), index.clone()
        for i in range(steps):
            x, series = torch.rand(2, 1), torch.rand(4 + i)
            torch.testing.assert_close(compiled(mine, at, x, series.clone()), step(k, index, x, series))
            torch.testing.assert_close(mine, k)
            assert torch.equal(at, index)
