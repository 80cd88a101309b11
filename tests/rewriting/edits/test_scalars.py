"""Positions as numbers in tensor arithmetic: eager's values and buffers, each op run once."""

from __future__ import annotations

import warnings

import pytest
import torch

import fxpass


class Counts(torch.nn.Module):
    """A cache position in arithmetic of every kind; ``cnt`` is written in place with it."""

    def __init__(self, use) -> None:
        super().__init__()
        self.use = use
        self.register_buffer("idx", torch.tensor([2]), persistent=False)
        self.register_buffer("cnt", torch.zeros(3), persistent=False)
        self.register_buffer("cache", torch.zeros(1, 9, 4), persistent=False)

    def forward(self, x):
        pos = self.idx[0].item()
        self.cache[:, pos : pos + 1] = x
        self.idx[0] = pos + 1
        return self.use(self, x, pos) + self.cache[:, : pos + 1].sum(1, keepdim=True)


def in_place_on_a_buffer(self, x, pos):
    self.cnt.add_(pos)
    return x + self.cnt.sum()


def in_place_on_a_copy(self, x, pos):
    y = x.clone()
    y.add_(pos)
    return y


def chained(self, x, pos):
    return (x + pos) * pos - pos


def compared(self, x, pos):
    return torch.where(torch.arange(4) < pos, x, -x)


def positions_as_values(self, x, pos):
    return x * torch.arange(pos, pos + 4)


def positions_backwards(self, x, pos):
    rows = self.cache[:, :4].index_copy(1, torch.arange(pos + 3, pos - 1, -1) - pos, x.expand(1, 4, 4) * torch.ones(4, 1))
    return rows.cumsum(1)[:, -1:] * torch.arange(pos, pos + 8, 2) + torch.arange(pos, pos - 4, -1).float()


def chosen(self, x, pos):
    either = torch.where(x > 0, pos, pos + 2) + torch.where(x > 1, 7, pos)
    some = torch.where(torch.arange(4, dtype=torch.int32) > 1, pos, torch.arange(4, dtype=torch.int32))
    return torch.where(x > 0, x, pos) + torch.where(x > 1, pos, x.sum()) + either * (some.dtype == torch.int32) + some


def clipped(self, x, pos):
    return x.clip(-pos, 0.5) + x.clip(max=pos / 8)


def filled(self, x, pos):
    return x + torch.full((4,), pos, dtype=x.dtype)


def zero_dim_promotion(self, x, pos):
    return x * (torch.tensor(3, dtype=torch.int32) * pos).to(x.dtype)


def clamped(self, x, pos):
    return x.clamp(max=pos * 0.1) + x.clamp(-pos, 1)


def integers_clamped(self, x, pos):
    return x + torch.arange(4).clamp(min=1, max=pos) + torch.arange(6)[1:5].clamp(pos / 4)


def truths_as_numbers(self, x, pos):
    return x * float(pos == 4) + float(pos > 3) / 2


def rows_put_in(self, x, pos):
    k = torch.slice_scatter(self.cache, x * 2, 1, pos, pos + 1)
    return k.cumsum(1)[:, -1:] + k[:, : pos + 1].amax(1, keepdim=True)


def rows_put_in_from_the_end(self, x, pos):
    return self.cache.slice_scatter(x.half(), dim=-2, start=pos - 9, end=pos - 8).cumsum(1)[:, -1:]


def several_rows_put_in(self, x, pos):
    return self.cache.mT.slice_scatter(x.mT.expand(1, 4, 3), 2, pos, pos + 3).cumsum(2)[..., -1:].mT


def a_row_put_in(self, x, pos):
    return self.cache.select_scatter(x[:, 0] + 1, 1, pos).select_scatter(x[:, 0], 1, pos + 2).cumsum(1)[:, -1:]


USES = [in_place_on_a_buffer, in_place_on_a_copy, chained, compared, positions_as_values, positions_backwards, chosen,
        clipped, filled, zero_dim_promotion, clamped, integers_clamped, truths_as_numbers, rows_put_in,
        rows_put_in_from_the_end, several_rows_put_in, a_row_put_in]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=lambda f: f.__name__)
def test_as_in_eager(use) -> None:
    eager, ours = Counts(use), Counts(use)
    compiled = torch.compile(ours, backend="kvfix", options={"compiler": "eager"})
    with torch.no_grad():
        for _ in range(5):
            x = torch.randn(1, 1, 4)
            torch.testing.assert_close(compiled(x), eager(x), rtol=0, atol=1e-6)
            for name, buffer in eager.named_buffers():
                assert torch.equal(buffer, getattr(ours, name)), name
    report = fxpass.reports()[-1]
    assert report.refused == 0 and len(fxpass.reports()) == 2
    assert "scalar" in {site.kind for site in report.sites}


@pytest.mark.parametrize("rows", [2, None])
@torch.no_grad()
def test_another_number_of_rows_is_an_error_as_in_eager(rows: int | None) -> None:
    """Operators on tensors without data do not tell."""

    def step(k: torch.Tensor, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        start = int(index[0])
        return torch.slice_scatter(k, x, 1, start, None if rows is None else start + rows)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for start in (2, 3, 4):
        with pytest.raises(Exception, match="src to have a size equal"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled(torch.rand(2, 8, 4), torch.tensor([start]), torch.rand(2, 1, 4))


OF_MOVING_ROWS = {
    "joined": lambda k, x, p: torch.cat([k[:, : p + x.shape[1]], x * (p or 7)], 1).sum(1),
    "joined and shifted": lambda k, x, p: torch.cat([k[:, : p + x.shape[1]], x + p - 1], 1).amax(1),
    "joined and rolled": lambda k, x, p: torch.cat([k[:, : p + x.shape[1]], x.roll(p, -1)], 1).sum(1),
    "joined and bounded": lambda k, x, p: torch.cat([x.clamp(max=p), k[:, :p]], 1).sum(1),
    "joined and subtracted": lambda k, x, p: torch.cat([k[:, : p + x.shape[1]], p - x], 1).mean(1),
    "put, read from the end": lambda k, x, p: torch.slice_scatter(k, x, 1, p, p + x.shape[1])[:, -p - x.shape[1] :].sum(1),
    "put twice": lambda k, x, p: torch.slice_scatter(
        torch.slice_scatter(k, x, 1, p, p + x.shape[1]), x * p, 1, p, p + x.shape[1]
    )[:, : p + x.shape[1]].sum(1),
}


@pytest.mark.parametrize("use", OF_MOVING_ROWS)
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@torch.no_grad()
def test_sizes_are_read_off_what_stands_for_what_was_rewritten(use, compiler):
    """The number of new rows moves, too, and is asked of a tensor that a position has been computed into."""

    def step(k, x, p):
        k[:, p : p + x.shape[1]] = x
        return OF_MOVING_ROWS[use](k, x, p)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    ours, theirs, p = torch.zeros(2, 12, 2), torch.zeros(2, 12, 2), 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*KV(?!008).*", category=fxpass.KvfixWarning)
        for rows in (3, 1, 2, 1):
            x = torch.randn(2, rows, 2)
            torch.testing.assert_close(compiled(ours, x, p), step(theirs, x, p))
            assert torch.equal(ours, theirs)
            p += rows
    assert not any("the pass failed" in str(report.unfit) for report in fxpass.reports())


CHECKED = {
    "full": lambda q, p: torch.full((2,), p * 40, dtype=torch.int8),
    "no sign": lambda q, p: torch.full((2,), -p * 100, dtype=torch.uint8),
    "fill_": lambda q, p: q.fill_(p * 40),
    "fill_, half": lambda q, p: q.half().fill_(p * 25000),
    "fill_, 32 bits": lambda q, p: q.int().fill_(p * 700_000_000),
    "a row": lambda q, p: put_row(q, p),
    "masked_fill": lambda q, p: q.masked_fill(q < 2, p * 40),
    "clamp": lambda q, p: q.clamp(0, p * 40),
    "a power": lambda q, p: q ** (p * 40),
    "a scalar tensor": lambda q, p: torch.tensor(p * 40, dtype=torch.int8) + q,
    "no check: a sum": lambda q, p: q + p * 400,
    "no check: a tensor": lambda q, p: q.fill_(torch.tensor(p) * 400),
}


def put_row(q, p):
    q[:, p - 1 : p] = p * 40
    return q


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", list(CHECKED))
def test_a_number_that_does_not_fit_the_dtype_is_an_error(name):
    def step(k, q, x, p):
        k[:, p : p + 1] = x
        return CHECKED[name](q, p), k[:, : p + 1].sum(1)

    compiled, ours, theirs = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), *(
        (torch.zeros(2, 8, 4), torch.ones(2, 8, dtype=torch.int8)) for _ in range(2)
    )
    for p in (1, 2, 3, 4, 5):
        x = torch.rand(2, 1, 4)
        try:
            wanted = step(*theirs, x, p)
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match="without overflow"):
                compiled(*ours, x, p)
            assert "without overflow" in str(error) and p > 2
            return
        torch.testing.assert_close(compiled(*ours, x, p), wanted)
        assert all(map(torch.equal, ours, theirs))
    assert "no check" in name
