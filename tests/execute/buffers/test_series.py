"""A series that the caller makes longer is growth: each step equals eager's, in one static core, with nothing outside of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compilations import parts_compiled
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass
from fxpass import backend
from fxpass.execute.buffers import growth
from fxpass.execute.recording.packing import Pack
from fxpass.kernels.launches import limits

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
    "discounted": lambda x, mask: (x * 0.9 ** torch.arange(x.shape[-1] - 1, -1, -1)).sum(-1, keepdim=True) + x,
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


STEPS = [*range(16, 36, PATCH), *range(56, 140, 20)]
"""Capacities of 64, 128 and 256."""


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_every_step_is_eagers_whatever_a_longer_series_has_left_behind(read: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = Series(read).eval()
    fn = compiled(model)
    follow(fn, model, series(STEPS))
    with torch.no_grad():
        left = torch.full((2, 3, STEPS[-1]), float("nan"))
        left[0], left[1, 1] = float("inf"), -3e38
        fn(left, torch.ones_like(left, dtype=torch.bool))
    follow(fn, model, series([28, 32]))
    is_whole()


@pytest.mark.inductor
def test_with_inductor() -> None:
    model = Series(causal, shown=True).eval()
    follow(compiled(model, "inductor"), model, series([16, 20, 24, 60, 64]))
    is_whole()


CALLS: dict[str, list[tuple[list[int], int]]] = {
    "several patches at once": [([16, 20, 28, 32, 44, 48, 68], 2)],
    "begun again": [([16, 20, 24, 28], 2), ([16, 20, 24], 2), ([12, 16, 20, 40, 44], 2)],
    "in turn": [([16, 20, 24], 2), *(([24 + 4 * (i // 2) - 8 * (i % 2)], 2) for i in range(8))],
    "another batch": [([16, 20, 24, 28], 2), ([24, 28, 32], 3), ([36, 40], 2)],
    "from longer to shorter": [([16, 20, 24, 130, 134], 2), ([20, 24, 28], 2)],
}


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_series_of_any_lengths(calls: list[tuple[list[int], int]]) -> None:
    model = Series(causal).eval()
    fn = compiled(model)
    for lengths, batch in calls:
        follow(fn, model, series(lengths, batch))
    is_whole(4)


def test_a_core_is_compiled_twice_for_all_capacities() -> None:
    """With AOTAutograd, and a result as long as the series."""
    model = Series(patched, shown=True).eval()
    with parts_compiled(least=16) as made:
        follow(compiled(model, "aot_eager"), model, series([16, 20, *range(24, 300, 24)]))
    assert made == ["core", "core"]


class Scaled(Series):
    """Gives what was read, twice the series as it is, what is valid, and one number for each patch."""

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        read = self.read(x, mask)
        return self.out(read[..., -PATCH:]), read, x * 2, x > 0, read.unfold(-1, PATCH, PATCH).mean(-1), x.sum(-1)


def test_results_of_a_recording_leave_it_in_one_copy_of_each_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is as long as the series and what is not: as if the core was recorded, which needs a GPU."""
    monkeypatch.setattr(backend, "is_recorded", lambda *_: True)
    monkeypatch.setattr(limits, "DEVICES", {"cpu"})
    monkeypatch.setattr(growth, "LEAST", 16)
    copied: list[Any] = []
    copies = Pack.copies
    monkeypatch.setattr(Pack, "copies", lambda pack, packed: copied.append(pack.nodes) or copies(pack, packed))
    model = Scaled(causal).eval()
    follow(compiled(model), model, series([8, 12, 16, 20, 32, 36]))
    is_whole()
    assert [len(nodes) for nodes in copied] == [2] * 5  # the last patch, and what is as long as the series


class Two(nn.Module):
    """Two series of different lengths, of which one has two rows for each row of the other, beside a cache at a position."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(PATCH, 8)

    def forward(self, x: Tensor, ids: Tensor, cache: Tensor, start: int) -> Tensor:
        scaled = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1)
        q = self.out(scaled[..., -PATCH:]) + ids[..., -1:].float()
        cache[:, start : start + 1] = q
        rows = cache[:, : start + 1]
        return nn.functional.scaled_dot_product_attention(q, rows, rows) * (ids == ids[..., :1]).sum()


@torch.no_grad()
def test_two_series_beside_a_cache() -> None:
    model = Two().eval()
    fn = compiled(model)
    for begin in (8, 12):
        caches = [torch.zeros(2, 32, 8), torch.zeros(2, 32, 8)]
        x, ids = torch.randn(2, 1, 2 * begin), torch.randint(3, (2, 1, begin))
        for start in range(12):
            found, wanted = (f(x, ids, cache, start) for f, cache in zip((fn, model), caches, strict=True))
            torch.testing.assert_close(found, wanted)
            torch.testing.assert_close(*caches)
            x, ids = torch.cat([x, torch.randn(2, 1, 8)], -1), torch.cat([ids, torch.randint(3, (2, 1, 4))], -1)
    is_whole(4)


def test_the_smaller_of_a_length_and_a_number() -> None:
    """One graph for each side of it, and stock has one for both."""
    model = Series(lambda x, mask: x.cumsum(-1) / min(x.shape[-1], 26)).eval()
    follow(compiled(model), model, series([16, 20, 24, 28, 32, 36, 60, 64]))
    is_whole(3)


@torch.no_grad()
def test_another_size_on_each_call_is_no_growth() -> None:
    """It gets no buffers, and is left symbolic as in stock, without a warning; eager's numbers come all the time."""
    model = Series(causal).eval()
    fn = compiled(model)
    for length in (40, 12, 36, 8, 28, 44, 16, 60, 12, 52, 20):
        follow(fn, model, series([length]))
    assert fxpass.reports()[-1].corrected == ["L['x'].size()[2]"]
    assert not any(report.buffers or "buffer(" in report.after for report in fxpass.reports())


class Whole(Series):
    """All of the series goes through a product."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.out(x.unfold(-1, PATCH, PATCH)).mean(2)


class Written(Series):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x[..., -1:].mul_(1.0)
        return self.out(x[..., -PATCH:] - x.mean(-1, keepdim=True))


class NoRule(Series):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.out(x[..., -PATCH:] - torch.fft.rfft(x).abs().mean(-1, keepdim=True))


@pytest.mark.parametrize("kind", [Whole, Written, NoRule])
def test_what_gets_no_buffer_is_eagers(kind: type[Series]) -> None:
    model = kind(causal).eval()
    with pytest.warns(fxpass.KvfixWarning, match="KV201") if kind is NoRule else contextlib.nullcontext():
        follow(compiled(model), model, series([16, 20, 24, 28, 48]))
    assert counters["stats"]["unique_graphs"] == 2
    assert not any(report.buffers or "buffer(" in report.after for report in fxpass.reports())
