"""Index tensors that are read where another index tensor, or the caller, says: each model has its layers elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass


class Cache:
    """A buffer for some of the layers, the number of rows in each, and where a layer has its buffer."""

    def __init__(self, layers: int, with_cache: Sequence[int], dtype: torch.dtype = torch.int64) -> None:
        self.keys = torch.zeros(len(with_cache), 2, 16, 4)
        self.lengths = torch.zeros(len(with_cache), dtype=dtype)
        self.places = torch.zeros(layers, dtype=dtype)
        self.places[list(with_cache)] = torch.arange(len(with_cache), dtype=dtype)
        self.with_cache = with_cache

    def state(self) -> list[Tensor]:
        return [self.keys, self.lengths, self.places]


def items(cache: Cache, x: Tensor) -> Tensor:
    for layer in cache.with_cache:
        place = int(cache.places[layer].item())
        start = int(cache.lengths[place].item())
        end = start + x.shape[1]
        cache.keys[place, :, start:end] = x
        cache.lengths[place] = end
        x = x + cache.keys[place, :, :end].sum(1, keepdim=True)
    return x


def tensors(cache: Cache, x: Tensor) -> Tensor:
    for layer in cache.with_cache:
        place = cache.places[layer]
        start = cache.lengths[place]
        end = start + x.shape[1]
        cache.keys[place, :, start:end] = x
        cache.lengths[place] = end
        x = x + cache.keys[place, :, :end].sum(1, keepdim=True)
    return x


def selected(cache: Cache, x: Tensor) -> Tensor:
    for layer in cache.with_cache:
        place = int(cache.places.select(0, layer))
        start = int(cache.lengths.select(0, place))
        end = start + x.shape[1]
        cache.keys.select(0, place)[:, start:end] = x
        cache.lengths.select(0, place).fill_(end)
        x = x + cache.keys.select(0, place).narrow(1, 0, end).sum(1, keepdim=True)
    return x


def from_the_end(cache: Cache, x: Tensor) -> Tensor:
    for layer in cache.with_cache:
        place = int(cache.places[layer - len(cache.places)])
        start = cache.lengths[place]
        end = int(start) + x.shape[1]
        cache.keys[place][:, start:end] = x
        cache.lengths[place] += x.shape[1]
        x = x + cache.keys[place][:, :end].mean(1, keepdim=True)
    return x


MODELS = ((2, (0,)), (3, (0, 2)), (4, (1, 3)), (2, (0,)))


@pytest.mark.parametrize(
    "step, dynamic",
    [(items, None), (items, True), (items, False), (tensors, None), (selected, None), (from_the_end, None)],
)
def test_models_that_keep_their_layers_elsewhere(step: Callable[..., Tensor], dynamic: bool | None) -> None:
    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"}, dynamic=dynamic)
    for layers, with_cache in MODELS:
        mine, theirs = Cache(layers, with_cache), Cache(layers, with_cache)
        for n in (4, 1, 1):
            x = torch.rand(2, n, 4)
            torch.testing.assert_close(compiled(mine, x), step(theirs, x))
            assert all(map(torch.equal, mine.state(), theirs.state()))
    assert counters["stats"]["unique_graphs"] == 6 and not counters["graph_break"]
    for report in fxpass.reports()[1::2]:
        assert report.rewritten >= 2 and not report.refused
        assert [static for _, static, _ in report.parts] == [True]


def test_int32_through_aot_eager() -> None:
    counters.clear()
    compiled = torch.compile(items, backend="kvfix", options={"compiler": "aot_eager"})
    for layers, with_cache in MODELS[:2]:
        mine, theirs = (Cache(layers, with_cache, torch.int32) for _ in range(2))
        for n in (4, 1, 1):
            x = torch.rand(2, n, 4)
            torch.testing.assert_close(compiled(mine, x), items(theirs, x))
            assert all(map(torch.equal, mine.state(), theirs.state()))
    assert counters["stats"]["unique_graphs"] == 4 and not counters["graph_break"]


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_a_place_that_moves_with_every_call_costs_one_graph_at_most() -> None:
    """A schedule that is read step by step is data: after the first step that is fixed, it is read as stock reads it."""
    schedule, x = torch.tensor([5, 3, 8, 2, 9, 4]), torch.rand(2, 4)

    def step(schedule: Tensor, i: int, x: Tensor) -> Tensor:
        return x * 2 + schedule[i].item()

    found = {}
    for backend in ("eager", "kvfix"):
        torch.compiler.reset()
        counters.clear()
        options = {"compiler": "eager"} if backend == "kvfix" else None
        compiled = torch.compile(step, backend=backend, options=options)
        for i in range(6):
            torch.testing.assert_close(compiled(schedule, i, x), step(schedule, i, x))
        found[backend] = counters["stats"]["unique_graphs"]
    assert found["kvfix"] <= found["eager"] + 1, found


class Paged:
    """Page ``table[n // 4]`` holds row ``n``, or row ``n`` lies at ``table[n]``."""

    def __init__(self, n: int | Tensor) -> None:
        self.table, self.k, self.n = torch.tensor([3, 5, 1, 0, 7, 2, 6, 4]), torch.zeros(8, 4, 4), n


def page_of_a_row(cache: Paged, x: Tensor) -> Tensor:
    cache.k[cache.table[cache.n // 4], cache.n % 4] = x
    cache.n += 1
    rows = cache.k[cache.table].flatten(0, 1)[: int(cache.n)]
    return rows.sum(0) + rows[-1]


def place_of_a_row(cache: Paged, x: Tensor) -> Tensor:
    cache.k[int(cache.table[cache.n]), 2] = x
    cache.n += 1
    return cache.k.sum((0, 1))


def two_places(cache: Paged, x: Tensor) -> Tensor:
    now, before = int(cache.table[cache.n // 2]), int(cache.table[cache.n // 4])
    cache.k[now, 1:3] = x
    cache.n += 1
    return cache.k[now, :2].sum(0) + cache.k[before, 1:].sum(0)


@torch.no_grad()
@pytest.mark.parametrize("is_tensor", [False, True])
@pytest.mark.parametrize("step, most", [(page_of_a_row, 3), (place_of_a_row, 5), (two_places, 5)])
def test_a_place_that_follows_from_a_position(step: Callable[..., Tensor], most: int, is_tensor: bool) -> None:
    mine, eager = (Paged(torch.tensor(0) if is_tensor else 0) for _ in range(2))
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for _ in range(8 if step is place_of_a_row else 16):
        x = torch.rand(4)
        torch.testing.assert_close(compiled(mine, x), step(eager, x))
        assert torch.equal(mine.k, eager.k)
    assert counters["stats"]["unique_graphs"] <= most and not counters["graph_break"]
    assert not any(report.refused or report.outside for report in fxpass.reports())
