"""A function that remembers what it returned is traced once for the same arguments, in each graph."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
from small_models import kvfix
from torch import Tensor
from torch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
SCALE, LAYERS = 2, 3


class Recipe:
    def __init__(self, factor: int) -> None:
        self.factor, self.used = factor, [0]


@functools.lru_cache
def number(n: int) -> int:
    return SCALE * n


@functools.lru_cache(None)
def recipe(pattern: str, *names: str, more: tuple[int, ...] = ()) -> Recipe:
    return Recipe(len(pattern) + len(names) + sum(more))


@functools.cache
def factor(given: Recipe, n: int) -> int:
    return given.factor * n


@functools.lru_cache(typed=True)
def kind(n: float) -> int:
    return 2 if isinstance(n, float) else 3 if isinstance(n, bool) else 5


@functools.lru_cache(0)
def anew(n: int) -> int:
    return n + 1


@functools.cache
def ramp(n: int) -> Tensor:
    return torch.arange(n)


@functools.cache
def fails(n: int) -> int:
    raise ValueError(n)


@functools.cache
def of_tensor(x: Tensor) -> int:
    return x.dim()


@functools.lru_cache(1)
def the_last(n: int) -> list[int]:
    return [n]


@functools.lru_cache(2)
def the_last_two(n: Any) -> list[int]:
    return [2]


def after_others(function: Callable[[Any], list[int]], first: int, *others: Any) -> int:
    """How long the list is that ``function`` gives for ``first``, written to and asked for again after ``others``."""
    function(first).append(1)
    for other in others:
        function(other)
    again = function(first)
    again.append(1)
    return len(again)


def squared(x: Tensor) -> Tensor:
    return x * number(3) * number(3)


class Rope:
    @functools.cache  # noqa: B019
    def angle(self, n: int) -> int:
        return n


ROPE = Rope()


def caught(n: int) -> int:
    try:
        return fails(n)
    except ValueError:
        return n


USED: dict[str, tuple[str, Callable[[Tensor, int], Any], int]] = {
    "a number": ("number", lambda x, i: number(3), 1),
    "two arguments in turn": ("number", lambda x, i: number(i % 2 + 1), 2),
    "an object": ("recipe", lambda x, i: recipe("b h", "h", more=(1, 2)).factor, 1),
    "given such an object": ("factor", lambda x, i: factor(recipe("b h"), 2), 1),
    "the same object": ("recipe", lambda x, i: 1 + (recipe("b") is recipe("b")), 1),
    "equal numbers of several types": ("kind", lambda x, i: kind(0) + kind(0.0) + kind(False), 3),
    "a size": ("number", lambda x, i: number(x.shape[-1]), 1),
    "no memory": ("anew", lambda x, i: anew(3), LAYERS),
    "a tensor that it makes": ("ramp", lambda x, i: ramp(4).sum(), LAYERS),
    "an error": ("fails", lambda x, i: caught(2), LAYERS),
    "of a tensor": ("of_tensor", lambda x, i: of_tensor(x), LAYERS),
    "of an object": ("angle", lambda x, i: ROPE.angle(2), LAYERS),
    "forgotten": ("the_last", lambda x, i: after_others(the_last, 1, 2), 1 + 2 * LAYERS),
    "not forgotten yet": ("the_last_two", lambda x, i: after_others(the_last_two, 1, 3, 3, 1), 2),
    "forgotten for one more": ("the_last_two", lambda x, i: after_others(the_last_two, 1, 3, 4), 1 + 3 * LAYERS),
    "asked for in between": ("the_last_two", lambda x, i: after_others(the_last_two, 1, 3, 1, 4), 1 + 2 * LAYERS),
    "forgotten for what is no constant": ("the_last_two", lambda x, i: after_others(the_last_two, 1, ROPE, x), 1 + 3 * LAYERS),
    "under a checkpoint": ("number", lambda x, i: checkpoint(squared, x, use_reentrant=False), LAYERS),
}


def step(use: Callable[[Tensor, int], Any], cache: Tensor, x: Tensor, pos: int) -> Tensor:
    cache[:, pos : pos + 1] = x
    for i in range(LAYERS):
        x = x * use(x, i) / 4 + cache[:, : pos + 1].sum(1, keepdim=True)
    return x


def same_as_eager(use: Callable[[Tensor, int], Any], steps: int = 3) -> None:
    compiled, ours, theirs = kvfix(step), torch.zeros(2, 8, 4), torch.zeros(2, 8, 4)
    for pos in range(1, 1 + steps):
        x = torch.rand(2, 1, 4)
        the_last.cache_clear()
        the_last_two.cache_clear()
        torch.testing.assert_close(compiled(use, ours, x, pos), step(use, theirs, x, pos))


@torch.no_grad()
@pytest.mark.parametrize("name", USED)
def test_how_often_it_is_traced(name: str, traced: Counter[str]) -> None:
    function, use, times = USED[name]
    same_as_eager(use)
    assert traced[function] == 2 * times and traced["step"] == 3  # once up to the first slice, to make sizes dynamic


@torch.no_grad()
def test_what_it_reads_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, cache, x = kvfix(step), torch.zeros(2, 8, 4), torch.rand(2, 1, 4)
    for pos, scale in enumerate((2, 2, 3, 3), start=1):
        monkeypatch.setattr(f"{__name__}.SCALE", scale)
        number.cache_clear()
        kept = cache.clone()
        torch.testing.assert_close(compiled(USED["a number"][1], cache, x, pos), step(USED["a number"][1], kept, x, pos))
    number.cache_clear()


@torch.no_grad()
def test_stock_traces_every_call(traced: Counter[str]) -> None:
    torch.compile(step, backend="eager")(USED["a number"][1], torch.zeros(2, 8, 4), torch.rand(2, 1, 4), 1)
    assert traced["number"] == LAYERS


@torch.no_grad()
def test_patterns_of_layers_are_parsed_once(traced: Counter[str]) -> None:
    def split(x: Tensor, i: int) -> Tensor:
        return einops.rearrange(einops.rearrange(x, "b n (h d) -> b h n d", h=2), "b h n d -> b n (h d)")

    same_as_eager(split)
    traced_by_dynamo = 2 if traced["reduce"] else 0  # on torch 2.11, the functions are operators to it
    for function in ("_prepare_transformation_recipe", "_reconstruct_from_shape_uncached"):
        assert traced[function] == 2 * traced_by_dynamo, function
