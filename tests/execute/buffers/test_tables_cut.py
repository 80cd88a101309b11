"""Tables that are cut to the length of what grows keep their size, so that its buffer has a place in the static core."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor, nn

import fxpass
from fxpass import reasons

ROWS = 200
"""More than the buffers' capacity: of a smaller table a part of the buffer would have no row."""


class Places(nn.Module):
    """Adds ``cut(table, n)`` to a past of ``n`` rows, whatever ``keep`` makes of the table."""

    def __init__(self, cut: Callable[[Tensor, int], Tensor], shape: tuple[int, ...], keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cut, self.table = cut, keep(torch.rand(shape))

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        k = x if past is None else torch.cat([past, x], 1)
        assert k.shape[1] <= ROWS
        placed = k + self.cut(self.table, k.shape[1])
        return (x @ placed.mT).softmax(-1) @ placed, k


CUTS: dict[str, tuple[Callable[[Tensor, int], Tensor], tuple[int, ...]]] = {
    "rows": (lambda t, n: t[:, :n], (1, ROWS, 8)),
    "narrowed": (lambda t, n: t.narrow(0, 0, n), (ROWS, 8)),
    "transposed": (lambda t, n: t[:, :n].T, (8, ROWS)),
    "offset": (lambda t, n: t[1 : n + 1], (ROWS, 8)),
    "a mask": (lambda t, n: t[n - 1, :n, None], (ROWS, ROWS)),
}
KEPT = {"attribute": lambda t: t, "half": lambda t: t.bfloat16(), "view": lambda t: t[...]}


@pytest.mark.parametrize(("cut", "keep"), [*((c, "attribute") for c in CUTS), ("rows", "half"), ("narrowed", "view")])
@torch.no_grad()
def test_a_table_cut_to_a_length_that_grows(cut: str, keep: str) -> None:
    step = Places(*CUTS[cut], KEPT[keep])
    compiled = kvfix(step, compiler="eager")
    for rows in (3, 2):
        x, mine, eager = torch.rand(rows, 4, 8), None, None
        for _ in range(5):
            (y, mine), (wanted, eager) = compiled(x, mine), step(x, eager)
            torch.testing.assert_close(y, wanted)
            torch.testing.assert_close(mine, eager)
            x = torch.rand(rows, 1, 8)
    assert not any(r.refused or r.outside or r.unbuffered for r in fxpass.reports())
    steps = [r for r in fxpass.reports() if r.rewritten]
    assert steps and all(sum(static for _, static, _ in r.parts) == 1 for r in steps)


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@torch.no_grad()
def test_a_table_of_another_size_costs_what_it_costs_in_stock() -> None:
    """Its size is a symbol from then on; how it compares with a buffer's capacity is not known, and there is no buffer."""
    step = Places(*CUTS["rows"], lambda t: t)
    compiled = kvfix(step, compiler="eager")
    graphs = []
    for size in (ROWS, ROWS + 50, ROWS + 90):
        step.table = torch.rand(1, size, 8)
        x, mine, eager = torch.rand(2, 4, 8), None, None
        for _ in range(4):
            (y, mine), (wanted, eager) = compiled(x, mine), step(x, eager)
            torch.testing.assert_close(y, wanted)
            torch.testing.assert_close(mine, eager)
            x = torch.rand(2, 1, 8)
        graphs.append(len(fxpass.reports()))
    assert graphs == [graphs[0], graphs[0] + 2, graphs[0] + 2]  # the prompt's, and the step's
    assert reasons.ROOM.id in fxpass.reports()[-1].unbuffered
