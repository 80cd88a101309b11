"""The axis of the valid rows is merged with axes of any steady size: pages of a table, heads or channels of another number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpass

PAGE = 4

READS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "flattened": lambda pages, table, n: pages[table[:, : n // PAGE + 1]].flatten(1, 2)[:, : n + 1],
    "reshaped": lambda pages, table, n: pages[table[:, : (n + PAGE) // PAGE]].reshape(len(table), -1, 3)[:, : n + 1],
    "viewed": lambda pages, table, n: pages[table[:, : n // PAGE + 1]].view(2, (n // PAGE + 1) * PAGE, 3)[:, : n + 1],
    "all rows of the pages": lambda pages, table, n: pages[table[:, : n // PAGE + 1]].flatten(1, 2),
    "of one table": lambda pages, table, n: pages.index_select(0, table[0, : n // PAGE + 1]).flatten(0, 1)[None, : n + 1],
}


@torch.no_grad()
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("name", READS)
def test_pages_of_a_slice_of_a_table(name: str, start: int) -> None:
    """From the start on, the first page is one of a number that guards fix."""

    def step(pages: Tensor, table: Tensor, at: Tensor, x: Tensor) -> Tensor:
        n = int(at)
        pages[table[:, n // PAGE], n % PAGE] = x
        at += 1
        rows = READS[name](pages, table, n)
        return (x[:, None] @ rows.mT).softmax(-1) @ rows

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    table = torch.randperm(12)[:10].view(2, 5)
    (a, b), (at, copy) = torch.zeros(2, 12, PAGE, 3), torch.full((2, 1), start)
    for _ in range(11):
        x = torch.randn(2, 3)
        torch.testing.assert_close(compiled(a, table, at, x), step(b, table, copy, x))
        assert torch.equal(a, b)
    assert not any(report.refused or report.outside for report in fxpass.reports())
    ((_, static, _),) = fxpass.reports()[-1].parts
    assert static


MERGES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "rows with heads behind": lambda k, n: k[:, :n].flatten(1, 2).sum(1),
    "rows with all behind": lambda k, n: k[:, :n].flatten(1).square().sum(1),
    "rows with rows of the batch before": lambda k, n: k.transpose(1, 2)[:, :, :n].flatten(0, 2).sum(0),
    "rows with heads before": lambda k, n: k.transpose(1, 2)[:, :, :n].flatten(1, 2).cumsum(1)[:, -1] * 2,
}


@torch.no_grad()
@pytest.mark.parametrize("name", MERGES)
def test_rows_with_an_axis_of_another_size(name: str) -> None:
    """A number of heads, and of rows of a batch, that is a symbol."""

    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x
        return MERGES[name](k, p + 1)

    compiled: Any = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    for rows, heads in ((2, 3), (4, 5), (3, 2)):
        a, b = torch.full((2, rows, 8, heads, 4), 9.0)
        for p in range(2, 6):
            x = torch.randn(rows, 1, heads, 4)
            torch.testing.assert_close(compiled(a, x, p), step(b, x, p))
    assert any(kind == "variant" for _, kind, _ in fxpass.reports()[-1].symbols)
    assert not any(report.refused for report in fxpass.reports())


@torch.no_grad()
def test_a_size_that_guards_fix_is_an_int() -> None:
    """A full window: the lesser of its rows and of the position is the number of its rows."""

    def step(k: Tensor, x: Tensor, held: dict[str, int]) -> Tensor:
        k.copy_(k.roll(-1, 1))
        k[:, -1:] = x
        held["rows"] = min(held["rows"] + 1, 8)
        rows = k[:, 8 - held["rows"] :]
        return torch.nn.functional.scaled_dot_product_attention(x, rows, rows)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    (a, b), mine, eager = torch.zeros(2, 2, 8, 3), {"rows": 3}, {"rows": 3}
    for _ in range(9):
        x = torch.randn(2, 1, 3)
        torch.testing.assert_close(compiled(a, x, mine), step(b, x, eager))
        assert torch.equal(a, b) and mine == eager
    assert not any(report.outside for report in fxpass.reports())
