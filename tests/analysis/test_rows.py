"""Rows at a position, however they are taken, of whatever tensor: eager's values, and eager's errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass

N = 16

READS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "index": lambda t, p: t[p],
    "column": lambda t, p: t[:, p],
    "last dim": lambda t, p: t[..., p],
    "select": lambda t, p: t.select(0, p),
    "narrow": lambda t, p: t.narrow(0, p, 1),
    "narrow from the front": lambda t, p: t.narrow(0, 0, p + 1).sum(0),
    "narrow of moving length": lambda t, p: t.narrow(0, p, p // 3).sum(0),
    "slice": lambda t, p: t[p : p + 2],
    "from a place on": lambda t, p: t[p:].sum(0),
    "window": lambda t, p: t[p // 2 : p].sum(0),
    "negative": lambda t, p: t[-p],
    "below zero and above": lambda t, p: t[p - 10],
    "size subtracted": lambda t, p: t[p - t.shape[0]],
    "two negative bounds": lambda t, p: t[p - 13 : p - 11].sum(0),
    "the last": lambda t, p: t[-p:].sum(0),
    "all but the last": lambda t, p: t[:-p].sum(0),
    "clamped": lambda t, p: t[: min(p, 6)].sum(0) + t[max(p - 3, 0) : p].sum(0),
    "past the end": lambda t, p: t[p : p + 30].sum(0),
    "element": lambda t, p: t[p, p],
    "transposed": lambda t, p: t.transpose(0, 1)[p],
    "piece": lambda t, p: t[p : p + 4].split(2)[1],
    "split": lambda t, p: t.split([p, t.shape[0] - p])[1].sum(0),
    "unbind": lambda t, p: t[p : p + 2].unbind(0)[1],
}


def only_read(t: Tensor, x: Tensor, p: int) -> Tensor:
    return t


def slice_written(t: Tensor, x: Tensor, p: int) -> Tensor:
    t[p : p + 1] = x[:1]
    return t


def index_copied(t: Tensor, x: Tensor, p: int) -> Tensor:
    return t.index_copy_(0, torch.arange(p, p + 1), x[:1])


def index_put(t: Tensor, x: Tensor, p: int) -> Tensor:
    t[torch.full((1,), p)] = x[:1]
    return t


def scattered(t: Tensor, x: Tensor, p: int) -> Tensor:
    return t.scatter_(0, torch.full((1, N), p), x[:1])


def copied(t: Tensor, x: Tensor, p: int) -> Tensor:
    return t.copy_(t * 2)


def made(t: Tensor, x: Tensor, p: int) -> Tensor:
    return torch.arange(N)[:, None] + torch.ones(N, N)


BASES = (only_read, slice_written, index_copied, index_put, scattered, copied, made)


def same(base: Callable[..., Tensor], read: Callable[..., Tensor], growing: bool = False) -> None:
    def step(t: Tensor, x: Tensor, p: int) -> Tensor:
        return read(base(t, x, p), p) + x.sum()

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine = torch.rand(N, N)
    eager = mine.clone()
    for p in (4, 5, 6, 8, 9, 12):
        if growing:
            mine = torch.rand(p + 5, N)
            eager = mine.clone()
        x = torch.rand(N, N)
        torch.testing.assert_close(compiled(mine, x, p), step(eager, x, p))
        torch.testing.assert_close(mine, eager)
    assert not any(report.unfit for report in fxpass.reports())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("read", list(READS))
def test_rows_of_a_table_and_of_a_cache(read: str) -> None:
    """A table that is only read and a buffer that slices are written to, for every way to read."""
    same(only_read, READS[read])
    torch._dynamo.reset()
    same(slice_written, READS[read])


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("base", BASES[2:], ids=lambda f: f.__name__)
@pytest.mark.parametrize("read", ["index", "column", "narrow", "slice", "below zero and above", "the last"])
def test_rows_of_what_is_written_by_other_ways(base: Callable[..., Tensor], read: str) -> None:
    same(base, READS[read])


@torch.no_grad()
@pytest.mark.parametrize("read", ["index", "narrow", "slice", "size subtracted", "negative"])
def test_rows_of_a_series_that_grows(read: str) -> None:
    same(only_read, READS[read], growing=True)


@torch.no_grad()
@pytest.mark.parametrize("read", ["from a place on", "window", "narrow from the front", "clamped"])
def test_a_moving_number_of_rows_of_a_series_that_grows_is_left_to_the_growing_part(read: str) -> None:
    same(only_read, READS[read], growing=True)
    assert not fxpass.reports()[-1].refused


@torch.no_grad()
def test_a_row_that_is_not_there() -> None:
    """An error of eager's is one of kvfix too, and the next call is right."""

    def step(t: Tensor, p: int) -> Tensor:
        return t[p] * 2

    compiled, table = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.rand(8, 3)
    for p in (4, 5, 6, 8, -9, 7, -8, -1):
        if -8 <= p < 8:
            assert torch.equal(compiled(table, p), table[p] * 2)
        else:
            with pytest.raises((IndexError, RuntimeError)):
                compiled(table, p)
