"""A series that the caller makes longer is growth: each step equals eager's, in one static core, with nothing outside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass

PATCH = 4


class Series(nn.Module):
    """[B, V, T] in, the last patch through a linear layer; ``read`` makes [B, V, T] of the series and its mask."""

    def __init__(self, read: Callable[[Tensor, Tensor], Tensor], shown: bool = False) -> None:
        super().__init__()
        self.read, self.shown, self.out = read, shown, nn.Linear(PATCH, 6)

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        read = self.read(x, mask)
        y = self.out(read[..., -PATCH:])
        return (y, read) if self.shown else y


def causal(x: Tensor, mask: Tensor) -> Tensor:
    """Scaled by the mean and variance so far (Welford's), in float64."""
    x64, w = x.double(), mask.double()
    count = w.cumsum(-1).clamp_min(1)
    mean = (x64 * w).cumsum(-1) / count
    before = torch.zeros_like(mean)
    before[..., 1:] = mean[..., :-1]
    spread = ((x64 - before) * (x64 - mean) * w).cumsum(-1) / (count - 1).clamp_min(1)
    return ((x64 - mean) / (spread + 0.1).sqrt()).float()


def patched(x: Tensor, mask: Tensor) -> Tensor:
    """Each patch by its last statistics."""
    mean = x.cumsum(-1) / torch.arange(1, x.shape[-1] + 1)
    last = mean.unfold(-1, PATCH, PATCH)[..., -1]
    return x - last[..., None].expand(-1, -1, -1, PATCH).reshape(x.shape)


def prefix(x: Tensor, mask: Tensor) -> Tensor:
    """Scaled by what the first rows are like, held within what all are like."""
    first = torch.zeros_like(x)
    first[..., :PATCH] = 1.0
    mean = (x * first * mask).sum(-1, keepdim=True) / (first * mask).sum(-1, keepdim=True).clamp_min(1)
    return (x - mean).clamp(x.amin(-1, keepdim=True) * 0.5, x.std(-1, keepdim=True).expand_as(x))


READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "causal": causal,
    "patched": patched,
    "prefix": prefix,
    "moments": lambda x, mask: (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-3).sqrt(),
    "extrema": lambda x, mask: x.cummax(-1).values - x.cummin(-1).values + x.argmax(-1, keepdim=True),
    "differences": lambda x, mask: nn.functional.pad(x.diff(dim=-1), (1, 0)) + x.flip(-1).cumprod(-1).tanh(),
    "reflected": lambda x, mask: nn.functional.pad(x, (1, 1), mode="reflect").unfold(-1, 3, 1).mean(-1),
    "rolled": lambda x, mask: torch.where(mask, x, x.roll(1, -1)) * (torch.arange(x.shape[-1]) < 9),
    "by age": lambda x, mask: x * (torch.arange(x.shape[-1]) - x.shape[-1]).float().exp() + mask.sum(-1, keepdim=True),
    "softmax": lambda x, mask: x.masked_fill(~mask, -9.0).softmax(-1) + x.logcumsumexp(-1) / x.shape[-1],
    "sorted": lambda x, mask: x.sort(stable=True, dim=-1).values,
    "ends": lambda x, mask: x - x[..., :1] - x[..., -1:] + x[..., -PATCH:].sum(-1, keepdim=True),
}


def compiled(model: nn.Module, compiler: str = "eager") -> Callable[..., Any]:
    return torch.compile(model, backend="kvfix", options={"compiler": compiler})


def series(lengths: list[int], batch: int = 2) -> Iterator[tuple[Tensor, Tensor]]:
    """A series of these lengths, each made of the one before by `cat`, with a mask that grows along with it."""
    x, mask = torch.randn(batch, 3, 0), torch.ones(batch, 3, 0, dtype=torch.bool)
    for length in lengths:
        more = length - x.shape[-1]
        x = torch.cat([x, torch.randn(batch, 3, more)], -1)
        mask = torch.cat([mask, torch.rand(batch, 3, more) > 0.3], -1)
        yield x, mask


@torch.no_grad()
def follow(fn: Callable[..., Any], model: nn.Module, given: Any) -> None:
    for args in given:
        kept = [t.clone() for t in args]
        found, wanted = fn(*args), model(*args)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        for mine, other in zip(*map(torch.utils._pytree.tree_leaves, (found, wanted)), strict=True):
            assert mine.stride() == other.stride()
        assert all(map(torch.equal, args, kept))


def is_whole(graphs: int = 2) -> None:
    """At most so many graphs, of which the last is one static core."""
    assert counters["stats"]["unique_graphs"] <= graphs and not counters["graph_break"]
    report = fxpass.reports()[-1]
    assert report.rewritten and not report.refused and not report.unfit and not report.unbuffered, report
    assert [(name, static) for name, static, _ in report.parts] == [("core", True)]


STEPS = [*range(16, 60, PATCH), *range(60, 140, 20)]
"""Capacities of 64, 128 and 256."""


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_every_step_is_eagers(read: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Series(read).eval()
    follow(compiled(model), model, series(STEPS))
    is_whole()
