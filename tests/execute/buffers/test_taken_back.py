"""Loops that have several rows checked at once, and take some of them back: the steps of assisted decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from compilations import parts_compiled
from test_growth import Attention, Flat, Held, Hooked, Listed, Products, Rows, both, compiled, same, start
from torch import nn
from torch._dynamo.utils import counters

import fxpass


def last(dim: int, cut: Callable[[torch.Tensor, int, int], torch.Tensor]) -> Callable[[Any, int], Any]:
    """Takes the last rows along ``dim`` out of a cache: of each tensor of a tuple, a list, a dict or an object."""

    def taken(cache: Any, rows: int) -> Any:
        if isinstance(cache, dict):
            return {module: cut(t, dim, t.shape[dim] - rows) for module, t in cache.items()}
        if isinstance(cache, (tuple, list)):
            return type(cache)(cut(t, dim, t.shape[dim] - rows) for t in cache)
        cache.k, cache.v = (cut(t, dim, t.shape[dim] - rows) for t in (cache.k, cache.v))
        return cache

    return taken


def sliced(t: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    return t[(*[slice(None)] * dim, slice(0, length))]


def narrowed(t: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    return t.narrow(dim, 0, length)


def copied(t: torch.Tensor, dim: int, length: int) -> torch.Tensor:
    return t.narrow(dim, 0, length).contiguous()


LOOPS = {
    "some rows": (Attention, 2, sliced, [4], 0),
    "another number of rows each time": (Attention, 2, sliced, [3, 2, 5, 4, 6, 7, 8, 9, 10], 0),
    "one row in between, after the prompt too": (Attention, 2, narrowed, [1, 4, 2], 1),
    "copies": (Products, 2, copied, [4, 3, 4], 1),
    "a list": (Listed, 2, narrowed, [4], 1),
    "rows before heads": (Rows, 1, sliced, [3, 4, 1], 0),
    "flat": (Flat, 1, sliced, [2, 4], 1),
    "an object": (Held, 2, sliced, [4, 3], 1),
    "a dict by module": (Hooked, 1, sliced, [1, 4, 2], 1),
}


@pytest.mark.parametrize("kind, dim, cut, rows, first", LOOPS.values(), ids=LOOPS)
@torch.no_grad()
def test_what_is_taken_back_costs_no_graph(
    kind: type[nn.Module], dim: int, cut: Callable[..., Any], rows: Sequence[int], first: int
) -> None:
    """One graph for the prompt, one for all numbers of rows, and one for a single row; the core of each is compiled once."""
    model, taken = kind().eval(), last(dim, cut)
    fn, mine, other = compiled(model), start(model), start(model)
    with parts_compiled(least=64) as made:
        for step in range(13):
            x = torch.randn(2, 5 if step == 0 else rows[step % len(rows)], 16)
            mine, other = both(fn, model, x, (mine, other), atol=1e-5, rtol=1e-5)
            if back := (step * 7 + 3) % x.shape[1] if step else first:
                mine, other = taken(mine, back), taken(other, back)
    assert counters["stats"]["unique_graphs"] <= 2 + (1 in rows)
    assert made.count("core") == any(n > 1 for n in rows) + (1 in rows), made
    for report in fxpass.reports()[1:]:
        assert "buffer(" in report.after and not (report.unbuffered or report.refused or report.outside or report.corrected)


class Last(Attention):
    """Of the results, as many of the last ones as the caller asks for."""

    def forward(self, x: torch.Tensor, past: Any, last: int) -> Any:
        y, new = super().forward(x, past)
        return y[:, -last:] * 2, new


ASKED = {
    "all": ([(9, 2), (2, 2), (2, 2), (3, 3), (5, 5), (2, 2), (6, 6), (7, 7), (4, 4), (1, 1), (3, 3)], 2),
    "some": ([(9, 2), (3, 2), (4, 3), (5, 2), (6, 4), (3, 2), (7, 4), (8, 3), (9, 8)], 2),
    "all of them, or some": ([(9, 2), (2, 2), (4, 3), (5, 2), (6, 6), (3, 2), (7, 4), (1, 1), (8, 3), (5, 5)], 3),
}


@pytest.mark.parametrize("calls, steps", ASKED.values(), ids=ASKED)
@torch.no_grad()
def test_an_int_that_says_how_many_of_the_rows_are_asked_for(calls: list[tuple[int, int]], steps: int) -> None:
    """One graph and one core for all numbers of rows, also where the int is the same for the prompt and the first step; one of
    each for a single row; and another one for all of the rows, or some, since PyTorch tells a tensor from a part of it."""
    model, taken = Last().eval(), last(2, sliced)
    fn, mine, other = compiled(model), None, None
    with parts_compiled(least=64) as made:
        for step, (rows, asked) in enumerate(calls):
            x = torch.randn(2, rows, 16)
            (y, mine), (wanted, other) = fn(x, mine, asked), model(x, other, asked)
            torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)
            same(mine, other)
            mine, other = (taken(past, rows // 2) if step else past for past in (mine, other))
    assert counters["stats"]["unique_graphs"] <= 1 + steps and made.count("core") <= steps, made


class Kept(nn.Module):
    """A cache of a fixed size; as many rows are written as come in."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.register_buffer("cache", torch.zeros(2, 2, 256, 16))

    def forward(self, x: torch.Tensor, at: int) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        end = at + x.shape[1]
        self.cache[0, :, at:end], self.cache[1, :, at:end] = k, v
        return nn.functional.scaled_dot_product_attention(q, self.cache[0, :, :end], self.cache[1, :, :end])


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@torch.no_grad()
def test_rows_of_a_cache_that_is_allocated(compiler: str) -> None:
    """More numbers of rows than Dynamo would compile for: all work stays in the core, compiled once, after one for the first
    step, of which the place is a constant."""
    model, other = Kept().eval(), Kept().eval()
    other.load_state_dict(model.state_dict())
    fn, at = compiled(model, compiler), 0
    with parts_compiled(least=64) as made:
        for rows in [3, 3, 2, 5, 4, 6, 7, 8, 9, 10, 11, 12, 13, 3, 5]:
            x = torch.randn(2, rows, 16)
            torch.testing.assert_close(fn(x, at), other(x, at), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(model.cache, other.cache, atol=1e-5, rtol=1e-5)
            at += rows - rows // 3
    report = fxpass.reports()[-1]
    assert made.count("core") <= 2 and not report.outside and not report.corrected, (made, report)


class Halved(Attention):
    """What was there is halved in place where ``halve`` says so."""

    def forward(self, x: torch.Tensor, past: Any, halve: bool = False) -> Any:
        if halve:
            past[0].mul_(0.5)
        return super().forward(x, past)


@torch.no_grad()
def test_a_part_that_is_written_is_seen_in_the_whole() -> None:
    """Keys and values are views of one tensor, of which the caller hands in the first rows; the keys are written in place."""
    model = Halved().eval()
    fn = compiled(model, "aot_eager")
    (_, mine), (_, other) = fn(x := torch.randn(2, 5, 16), None), model(x, None)
    with pytest.warns(fxpass.KvfixWarning, match="KV206"):
        for step in range(8):
            x, halve = torch.randn(2, 2, 16), step % 3 == 2
            wholes = [torch.stack(past) for past in (mine, other)]
            first, second = [(whole[0, :, :, :-1], whole[1, :, :, :-1]) for whole in wholes]
            (y, mine), (wanted, other) = fn(x, first, halve), model(x, second, halve)
            torch.testing.assert_close([y, wholes[0]], [wanted, wholes[1]], atol=1e-5, rtol=1e-5)
            same(mine, other)


@torch.no_grad()
def test_what_is_longer_than_an_input_of_one_size_is_no_cache() -> None:
    """A skip connection: inputs have the size that they had, or another batch, and no result was ever handed in."""

    def skip(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, (x.mT @ w).mT], 1)

    fn = torch.compile(skip, backend="kvfix", options={"compiler": "eager"})
    for batch in (2, 2, 4, 5, 2):
        x, w = torch.randn(batch, 3, 8), torch.randn(3, 3)
        torch.testing.assert_close(fn(x, w), skip(x, w))
    assert counters["stats"]["unique_graphs"] == 2
    assert all("size()[0]" in s.of for r in fxpass.reports() for s in r.symbols)
    assert not any("buffer(" in report.after for report in fxpass.reports())
