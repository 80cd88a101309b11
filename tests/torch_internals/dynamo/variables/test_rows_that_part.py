"""Rows of a batch that come and go: what all of them make is one guarded number, and no pair of them costs a graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass
from fxpass.index_tensors import mirror
from fxpass.index_tensors.history import ElementHistory

ROWS = 6
Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def attended(x: Tensor, k: Tensor, lens: Tensor, longest: int) -> Tensor:
    mask = torch.arange(longest)[None] < lens[:, None]
    return (x @ k[:, :longest].mT).masked_fill(~mask[:, None], float("-inf")).softmax(-1) @ k[:, :longest]


def longest(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    k[torch.arange(ROWS), lens.long()] = x[:, 0]
    lens += 1
    return attended(x, k, lens, int(lens.max()))


def shortest(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    return longest(x, k, lens) + k[:, : int(torch.amin(lens))].sum() + lens.sum().item()


def tensor_bound(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    end = lens.max() + 1
    k[torch.arange(ROWS), lens.long()] = x[:, 0]
    lens += 1
    mask = torch.arange(int(end))[None] < lens[:, None]
    return (x @ k[:, :end].mT).masked_fill(~mask[:, None], float("-inf")).softmax(-1) @ k[:, :end]


def listed(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    outputs = []
    for row, length in enumerate(lens.tolist()):
        k[row, length] = x[row, 0]
        outputs.append(k[row, : length + 1].sum(0))
    lens += 1
    return torch.stack(outputs)


def one_by_one(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    outputs = []
    for row in range(ROWS):
        start = int(lens[row])
        k[row, start : start + 1] = x[row]
        outputs.append(k[row, : start + 1].sum(0))
    lens += 1
    return torch.stack(outputs)


def asked(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    """Predicates are guards on their outcome."""
    if (lens > 40).any() or torch.all(lens == -1):
        return x
    out = longest(x, k, lens)
    return out + lens.numel() if ((lens > 0) & (lens < 50)).all() else out


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("step", [longest, shortest, tensor_bound, listed, one_by_one, asked])
def test_three_graphs_however_the_rows_part(step: Step, dtype: torch.dtype) -> None:
    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    k, lens = torch.zeros(ROWS, 64, 8), torch.full((ROWS,), 6, dtype=dtype)
    other, others = k.clone(), lens.clone()
    for i in range(24):
        x = torch.rand(ROWS, 1, 8)
        torch.testing.assert_close(compiled(x, k, lens), step(x, other, others))
        assert torch.equal(k, other) and torch.equal(lens, others)
        if i % 2:
            lens[i // 2 % ROWS] = others[i // 2 % ROWS] = 3 + i % 3
    assert counters["stats"]["unique_graphs"] <= 3
    assert not counters["graph_break"]


def every_other(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    """The numbers are the first of pairs."""
    return longest(x, k, lens.view(-1, 2)[:, 0])


@pytest.mark.parametrize("step, per_row", [(longest, 1), (tensor_bound, 1), (every_other, 2)])
def test_a_maximum_of_rows_costs_no_graph_when_they_part(step: Step, per_row: int) -> None:
    """It is computed in the core, from the rows as they were at the start."""
    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    k, lens = torch.zeros(ROWS, 64, 8), torch.full((per_row * ROWS,), 6)
    other, others = k.clone(), lens.clone()
    for i in range(8):
        x = torch.rand(ROWS, 1, 8)
        torch.testing.assert_close(compiled(x, k, lens), step(x, other, others))
        assert torch.equal(k, other) and torch.equal(lens, others)
        if i > 2:
            lens[i % ROWS] = others[i % ROWS] = 2
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    (part,) = fxpass.reports()[-1].parts
    assert part[0] == "core"


def of_first(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    return k[:, : int(lens.max())].sum() + x[:, : int(lens[2])].sum() + k[:, : int(lens.min())].sum()


def first_of(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
    return k[:, : int(lens[2])].sum() + x[:, : int(lens.min())].sum() + k[:, : int(lens.max())].sum()


@pytest.mark.parametrize("step", [of_first, first_of])
def test_equal_rows_and_their_extremes_are_one_number_until_they_part(step: Step) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    x, k, lens = torch.rand(ROWS, 64), torch.rand(ROWS, 64), torch.full((ROWS,), 6)
    for _ in range(4):
        torch.testing.assert_close(compiled(x, k, lens), step(x, k, lens))
        lens += 1
    assert len(fxpass.reports()) == 2
    assert [symbol.kind for symbol in fxpass.reports()[-1].symbols].count("position") == 1
    for row in (0, 2, 4):
        lens[row] += row + 1
        torch.testing.assert_close(compiled(x, k, lens), step(x, k, lens))
        torch.testing.assert_close(compiled(x, k, lens + 1), step(x, k, lens + 1))


def test_a_guard_asks_for_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 64 rows, too, the mirror is looked up twice a call: for the guard, and for the number."""
    compiled = torch.compile(
        lambda x, lens: x[: int(lens.max())].sum(), backend="kvfix", options={"compiler": "eager"}
    )
    for i in range(4):
        compiled(torch.ones(99), torch.arange(64) + i)
    lens = torch.arange(64) + 5
    compiled(torch.ones(99), lens)
    before = mirror.counters.hits + mirror.counters.refreshes
    assert compiled(torch.ones(99), lens) == 68
    assert mirror.counters.hits + mirror.counters.refreshes - before <= 3


def test_a_maximum_that_moves_with_what_is_added_stays_a_start_and_a_length() -> None:
    def step(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
        start = int(lens.max())
        lens += 1
        k[:, start : int(lens.max())] = x
        return k[:, : int(lens.max())].sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    k, lens = torch.zeros(2, 16, 4), torch.tensor([3, 5])
    for i in range(4):
        torch.testing.assert_close(compiled(torch.ones(2, 1, 4), k, lens), torch.full((2, 4), i + 1.0))
    assert fxpass.reports()[-1].rewritten == 2 and not fxpass.reports()[-1].refused


@pytest.mark.parametrize(
    "seen, groups",
    [
        ([(0, 0, 0, 0), (4, 4, 0, 0), (6, 6, 6, 6)], (0, 0, 1, 1)),  # filled later
        ([(4, 4, 4), (9, 9, 7)], (0, 0, 1)),  # left behind
        ([(4, 4, 4), (9, 9, 7), (11, 10, 8)], (0, 1, 2)),  # and again
        ([(6, 6, 6), (7, 3, 7)], (0, 1, 2)),  # used again
        ([(3, 5, 3), (4, 5, 3), (4, 6, 3)], (0, 1, 2)),  # one row begins to move after another
    ],
)
def test_what_is_alike(seen: list[tuple[int, ...]], groups: tuple[int, ...]) -> None:
    alike = ElementHistory()
    for values in seen:
        alike.see(values)
        alike.see(values)
    assert alike.groups == groups
