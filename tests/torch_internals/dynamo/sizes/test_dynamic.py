"""What `torch.compile` is told of dynamic shapes, and what Dynamo makes of floats, decides nothing about positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass


class Position:
    """A position and its cache; each kind hands the position over in another way."""

    def __init__(self, rows: int = 2) -> None:
        self.k = torch.zeros(rows, 16, 4)
        self.at = 0
        self.index = torch.zeros(1, dtype=torch.int64)


def int_argument(cache: Position, x: Tensor, at: int) -> Tensor:
    cache.k[:, at : at + x.shape[1]] = x
    return cache.k[:, : at + x.shape[1]].sum(1) @ torch.ones(4, 2)


def attribute(cache: Position, x: Tensor, at: int) -> Tensor:
    start = cache.at
    cache.at = start + x.shape[1]
    cache.k[:, start : cache.at] = x
    return cache.k[:, : cache.at].amax(1) @ torch.ones(4, 2)


def element(cache: Position, x: Tensor, at: int) -> Tensor:
    start = int(cache.index[0])
    cache.k.narrow(1, start, x.shape[1]).copy_(x)
    cache.index[0] = start + x.shape[1]
    return x @ cache.k[:, : start + x.shape[1]].mT @ cache.k[:, : start + x.shape[1]]


def bound(cache: Position, x: Tensor, at: int) -> Tensor:
    end = cache.index[0] + x.shape[1]
    cache.k[:, cache.index[0] : end] = x
    cache.index += x.shape[1]
    return (x @ cache.k[:, :end].mT).softmax(-1) @ cache.k[:, :end]


def by_index(cache: Position, x: Tensor, at: int) -> Tensor:
    """Written by an index tensor, and read in part."""
    cache.k.index_copy_(1, torch.arange(x.shape[1]) + at, x)
    return (cache.k[:, : at + x.shape[1]] * 2).sum(1) @ torch.ones(4, 2) + cache.k[:, :at].sum()


def series(cache: Position, x: Tensor, at: int) -> Tensor:
    """The whole series is handed in, and grows; only its last rows are new."""
    start = int(cache.index[0])
    new = x[:, start:]
    cache.k[:, start : x.shape[1]] = new
    cache.index[0] = x.shape[1]
    return cache.k[:, : x.shape[1]].sum(1) @ torch.ones(4, 2) + x.mean()


def decode(
    compiled: Callable[..., Tensor], step: Callable[..., Tensor], rows: int = 2, extra: tuple[Any, ...] = (), calls: int = 6
) -> None:
    """A prompt of four rows, then single ones, compared with eager; ``extra`` is what is given with each call."""
    mine, theirs, at = Position(rows), Position(rows), 0
    for n in (4, *[1] * (calls - 1)):
        x = torch.rand(rows, at + n if step is series else n, 4)
        torch.testing.assert_close(compiled(mine, x, at, *extra), step(theirs, x, at, *extra))
        assert torch.equal(mine.k, theirs.k) and torch.equal(mine.index, theirs.index)
        at += n


def seen(most: int) -> None:
    """At most ``most`` graphs, no breaks; the last has all that it can have rewritten, in one static core."""
    assert counters["stats"]["unique_graphs"] <= most and not counters["graph_break"]
    report = fxpass.reports()[-1]
    assert report.rewritten >= 2 and not report.refused and not report.unfit
    assert [name for name, static, _ in report.parts if static] == ["core"]


def kvfix(step: Callable[..., Tensor], compiler: str = "eager", dynamic: bool | None = None) -> Callable[..., Tensor]:
    counters.clear()
    return torch.compile(step, backend="kvfix", options={"compiler": compiler}, dynamic=dynamic)


STEPS = [int_argument, attribute, element, bound, by_index, series]


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("step", STEPS)
def test_positions_move_whatever_is_said(step: Callable[..., Tensor], dynamic: bool) -> None:
    compiled = kvfix(step, dynamic=dynamic)
    decode(compiled, step)
    seen(2)
    for rows in (3, 5):
        decode(compiled, step, rows)
    seen(4)


def test_aot_eager_with_sizes_fixed() -> None:
    decode(kvfix(element, "aot_eager", False), element)
    seen(2)


def test_fixed_sizes_stay_fixed_where_no_cache_is_sliced() -> None:
    """``dynamic=False`` is what it is to stock for a model without positions."""
    compiled = kvfix(lambda x: x.relu() @ torch.ones(4, 2), dynamic=False)
    for n in (2, 3, 4):
        assert compiled(torch.rand(n, 4)).shape == (n, 2)
    assert counters["stats"]["unique_graphs"] == 3
    assert not any(report.symbols for report in fxpass.reports())


class Normed(nn.Module):
    """A float of the module, as of a norm or a rotary embedding, beside a position."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, cache: Position, x: Tensor, at: int) -> Tensor:
        return int_argument(cache, x / (x.std() + self.eps), at)


def scaled(cache: Position, x: Tensor, at: int, factor: float) -> Tensor:
    return int_argument(cache, x * factor, at)


def tempered(cache: Position, x: Tensor, at: int, factor: float) -> Tensor:
    return (int_argument(cache, x, at) / factor).softmax(-1)


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_floats_of_modules_are_constants(dynamic: bool | None) -> None:
    counters.clear()
    for eps in (1e-5, 1e-3):
        model = Normed(eps)
        compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"}, dynamic=dynamic)
        decode(compiled, model, calls=3)
    seen(4)


@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("step", [scaled, tempered])
def test_floats_that_stay_are_constants(step: Callable[..., Tensor], dynamic: bool | None) -> None:
    compiled = kvfix(step, dynamic=dynamic)
    decode(compiled, step, extra=(0.5,))
    before = fxpass.reports()[-1].before
    assert "0.5" in before and "f64[] = input" not in before and "aten.item" not in before
    decode(compiled, step, extra=(0.25,))
    seen(4)


@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("step", [scaled, tempered])
def test_floats_that_move_cost_no_graph_a_step(step: Callable[..., Tensor], dynamic: bool | None) -> None:
    """What is computed with one runs outside of the core, before it or after it."""
    compiled, mine, theirs = kvfix(step, dynamic=dynamic), Position(), Position()
    for at in range(6):
        x, factor = torch.rand(2, 1, 4), 1 / (at + 1)
        torch.testing.assert_close(compiled(mine, x, at, factor), step(theirs, x, at, factor))
    seen(4)


def test_a_float_that_has_moved_is_no_constant_in_the_next_request() -> None:
    compiled = kvfix(tempered)
    for request in range(3):
        mine, theirs = Position(), Position()
        for at in range(5):
            x, factor = torch.rand(2, 1, 4), 1 + request + at / 8
            torch.testing.assert_close(compiled(mine, x, at, factor), tempered(theirs, x, at, factor))
    seen(3)


class Rows(torch.nn.Module):
    def __init__(self, put) -> None:
        super().__init__()
        self.put, self.pos = put, 0
        self.register_buffer("k", torch.zeros(2, 10, 4))
        self.register_buffer("v", torch.zeros(2, 10, 4))

    def forward(self, x):
        start, self.pos = self.pos, self.pos + x.shape[1]
        self.put(self, x, start)
        return self.k[:, : self.pos].sum(1) + self.v[:, : self.pos].amax(1)


def data_with_rows(m, x, start):
    m.k.data = m.k.slice_scatter(x, 1, start, m.pos)


def data_before(m, x, start):
    m.k.data = m.k.clone()
    m.k[:, start : m.pos] = x


def data_behind(m, x, start):
    m.k[:, start : m.pos] = x
    m.k.data = m.k.data * 2


def data_of_one(m, x, start):
    m.v.data = m.v + 1
    m.k[:, start : m.pos] = x


def data_of_another(m, x, start):
    m.k[:, start : m.pos], m.v[:, start : m.pos] = x, -x
    m.v.data = m.k.flip(0)


@torch.no_grad()
@pytest.mark.parametrize("put", [data_with_rows, data_before, data_behind, data_of_one, data_of_another])
def test_sizes_of_an_input_that_is_given_other_memory_are_fixed(put):
    """Dynamo fails on a symbol in one of them."""
    ours, theirs = Rows(put), Rows(put)
    compiled = torch.compile(ours, backend="kvfix", options={"compiler": "eager"})
    for rows in (2, 1, 1, 1):
        x = torch.rand(2, rows, 4)
        torch.testing.assert_close(compiled(x), theirs(x))
        assert torch.equal(ours.k, theirs.k) and torch.equal(ours.v, theirs.v)
    assert counters["stats"]["unique_graphs"] <= 3 and not counters["graph_break"]
    assert not any(report.faults for report in fxpass.reports())
