"""Rows that a mask takes out are as many as the host counts: one static step for any number of them, where stock breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

ROWS = 4
ON = ((0, 1, 2, 3), (0, 1, 3), (1, 3), (3,), (), (0, 2), (1, 2, 3), (0, 3))
"""The rows that are active in each call."""


class Batch:
    """A slot for each request, which has a length of its own."""

    def __init__(self) -> None:
        made = torch.Generator().manual_seed(0)
        self.k = torch.rand(ROWS, 24, 8, generator=made)
        self.lens, self.done = torch.tensor([3, 5, 2, 4]), torch.zeros(ROWS, dtype=torch.bool)

    def read(self, x: Tensor, rows: int = ROWS) -> Tensor:
        end = int(self.lens[:rows].max())
        seen = torch.arange(end) < self.lens[:rows, None]
        return sdpa(x, self.k[:rows, :end], self.k[:rows, :end], attn_mask=seen[:, None])


def by_mask(c: Batch, x: Tensor, on: Tensor) -> None:
    c.k[on, c.lens[on]] = x[on, 0]
    c.lens[on] += 1


def by_places(c: Batch, x: Tensor, on: Tensor) -> None:
    at = on.nonzero().squeeze(-1)
    c.k[at, c.lens[at]] = x[at, 0]
    c.lens.index_add_(0, at, torch.ones_like(at))


def by_places_in_a_tuple(c: Batch, x: Tensor, on: Tensor) -> None:
    (at,) = torch.nonzero(on, as_tuple=True)
    c.k.index_put_((at, c.lens[at]), x[at, 0])
    c.lens[torch.where(on)[0]] += 1


def by_selection(c: Batch, x: Tensor, on: Tensor) -> None:
    n = c.lens.masked_select(on)
    c.k[on, n] = x[on, 0]
    c.lens[on] = n + 1


def those_not_done(c: Batch, x: Tensor, on: Tensor) -> None:
    going = ~c.done
    c.k[going, c.lens[going]] = x[going, 0]
    c.lens[going] += 1
    c.done ^= ~on


def those_that_are_short(c: Batch, x: Tensor, on: Tensor) -> None:
    short = c.lens < 6
    c.k.index_put_((short, c.lens[short]), x[short, 0], accumulate=True)
    c.lens[short] += 1


def written_between(c: Batch, x: Tensor, on: Tensor) -> None:
    c.lens[on] += 1
    on[0] = True
    c.k[on, c.lens[on]] = x[on, 0]


def in_another_dim(c: Batch, x: Tensor, on: Tensor) -> None:
    c.k.transpose(0, 1)[c.lens[on], on] = x[on, 0]
    c.k.mT[:, :, 0].mT[:, on] *= 0.5
    c.lens[on] += 1


def emptied(c: Batch, x: Tensor, on: Tensor) -> None:
    c.k[~on] = x[0, 0]
    c.lens[~on] = 0
    c.k[torch.arange(ROWS), c.lens] = x[:, 0]
    c.lens += 1


WAYS = [by_mask, by_places, by_places_in_a_tuple, by_selection, those_not_done, those_that_are_short, written_between,
        in_another_dim, emptied]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("advance", WAYS)
def test_rows_that_a_mask_takes_out(advance: Callable[[Batch, Tensor, Tensor], None]) -> None:
    """Beside the first call's there are graphs for several rows, for one, and for none."""

    def step(c: Batch, x: Tensor, on: Tensor) -> Tensor:
        advance(c, x, on)
        return c.read(x)

    check(step, [(torch.rand(ROWS, 1, 8), active(rows, ROWS)) for rows in ON], graphs=5)


@torch.no_grad()
def test_of_a_batch_that_is_smaller() -> None:
    def step(c: Batch, x: Tensor, on: Tensor) -> Tensor:
        rows = x.shape[0]
        c.k[:rows][on, c.lens[:rows][on]] = x[on, 0]
        c.lens[:rows][on] += 1
        return c.read(x, rows)

    sizes = (4, 4, 4, 3, 3, 2, 3, 4)
    calls = [(torch.rand(n, 1, 8), active([r for r in (0, i % 4, 1 + i % 3) if r < n], n)) for i, n in enumerate(sizes)]
    check(step, calls, graphs=4)


@torch.no_grad()
@pytest.mark.parametrize("longest", ["of a slice", "of all, with a mask"])
def test_lengths_of_a_batch_that_is_smaller(longest: str) -> None:
    """The number of rows, which large tensors have, says which lengths count."""

    def step(c: Batch, x: Tensor) -> Tensor:
        rows = x.shape[0]
        c.k[torch.arange(rows), c.lens[:rows]] = x[:, 0]
        if longest == "of a slice":
            c.lens[:rows] += 1
            return c.read(x, rows)
        c.lens += torch.arange(ROWS) < rows
        return c.read(torch.cat([x, x.new_zeros(ROWS - rows, 1, 8)]))[:rows] if rows < ROWS else c.read(x)

    check(step, [(torch.rand(n, 1, 8),) for n in (4, 4, 3, 3, 2, 3, 2, 4)], graphs=4)


@torch.no_grad()
def test_a_mask_of_another_size_is_an_error_as_in_eager() -> None:
    def step(c: Batch, x: Tensor, on: Tensor) -> Tensor:
        by_mask(c, x, on)
        return c.read(x)

    compiled, mine = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), Batch()
    for n in (4, 4, 5, 3):
        x, on = torch.rand(ROWS, 1, 8), active((1, 2), n)
        if n == ROWS:
            compiled(mine, x, on)
        else:
            with pytest.raises(IndexError, match="mask"):
                compiled(mine, x, on)


def active(rows: Any, size: int) -> Tensor:
    return torch.tensor([i in rows for i in range(size)])


def check(step: Callable[..., Tensor], calls: list[tuple[Tensor, ...]], graphs: int) -> None:
    """Compare ``step`` with eager at each of ``calls``: results, caches, lengths and masks. All heavy ops are in one core."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, eager = Batch(), Batch()
    for args in calls:
        ours, theirs = ([a.clone() for a in args] for _ in range(2))
        torch.testing.assert_close(compiled(mine, *ours), step(eager, *theirs))
        torch.testing.assert_close((vars(mine), ours), (vars(eager), theirs), rtol=0, atol=0)
    assert counters["stats"]["unique_graphs"] <= graphs and not counters["graph_break"]
    assert not any(r.refused or r.unfit or r.outside for r in fxpass.reports())
    assert all([n for n, static, _ in r.parts if static] in (["core"], []) for r in fxpass.reports())


def of_floats(c: Batch, x: Tensor, on: Tensor) -> None:
    c.lens[x[:, 0, 0] > 0.5] += 1


def of_two_dims(c: Batch, x: Tensor, on: Tensor) -> None:
    c.k[(torch.arange(24) == c.lens[:, None]) & on[:, None]] *= 2
    c.lens += 1


def of_many_elements(c: Batch, x: Tensor, on: Tensor) -> None:
    c.lens[0] += c.k.new_ones(2000)[on.repeat(500)].shape[0] // 2000
    c.lens += 1


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("advance", [of_floats, of_two_dims, of_many_elements])
def test_what_the_host_cannot_count_breaks_as_in_stock(advance: Callable[[Batch, Tensor, Tensor], None]) -> None:
    def step(c: Batch, x: Tensor, on: Tensor) -> Tensor:
        advance(c, x, on)
        return c.read(x)

    breaks = {backend: compare(step, backend) for backend in ("kvfix", "eager")}
    assert 0 < breaks["kvfix"] <= breaks["eager"]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("listed", [lambda on: on.tolist(), lambda on: on.nonzero().flatten().tolist()])
def test_lists_as_an_index_are_as_in_stock(listed: Callable[[Tensor], list[Any]]) -> None:
    def step(c: Batch, x: Tensor, on: list[Any]) -> Tensor:
        c.lens[on] += 1
        return c.read(x)

    breaks = {backend: compare(step, backend, listed) for backend in ("kvfix", "eager")}
    assert breaks["kvfix"] <= breaks["eager"]


def compare(step: Callable[..., Tensor], backend: str, given: Callable[[Tensor], Any] = Tensor.clone) -> int:
    """Compare ``step``, compiled with ``backend``, with eager; gives the number of its graph breaks."""
    torch.compiler.reset()
    counters.clear()
    options: dict[str, Any] = {"options": {"compiler": "eager"}} if backend == "kvfix" else {}
    compiled, mine, eager = torch.compile(step, backend=backend, **options), Batch(), Batch()
    for rows in ON[:5]:
        x, on = torch.rand(ROWS, 1, 8), active(rows, ROWS)
        torch.testing.assert_close(compiled(mine, x, given(on)), step(eager, x, given(on)))
        torch.testing.assert_close(vars(mine), vars(eager), rtol=0, atol=0)
    return sum(counters["graph_break"].values())
