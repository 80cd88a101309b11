"""What the caller gets lies in memory as in eager, whatever the rewrite has put in to compute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

LAYOUTS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "rows last": ((2, 4, 8), lambda t: t.transpose(1, 2)),
    "rows last, batch behind": ((4, 8, 2), lambda t: t.permute(2, 1, 0)),
    "rows first": ((8, 2, 4), lambda t: t.transpose(0, 1)),
}
RESULTS: dict[str, Callable[[Tensor, int, int, Tensor], Any]] = {
    "rows": lambda k, s, e, x: k[:, s:e] * 2,
    "rows copied, with others": lambda k, s, e, x: (k[:, s:e].clone(), k[:, s:e] + x, x),
    "a row": lambda k, s, e, x: [k[:, s] - 1, k[:, s].clone()],
    "rows put in": lambda k, s, e, x: torch.slice_scatter(k, x * 2, 1, s, e),
    "a row put in, twice": lambda k, s, e, x: (y := torch.select_scatter(k, x[:, -1], 1, s), y),
    "a triangle": lambda k, s, e, x: k.tril(s),
    "rolled": lambda k, s, e, x: k.roll(s, 1),
    "filled": lambda k, s, e, x: k.masked_fill(torch.arange(8)[None, :, None] >= e, s),
    "a view of a result too": lambda k, s, e, x: (y := k[:, s:e] * 2, y[0]),
    "largest": lambda k, s, e, x: k[:, :e].amax(1, keepdim=True),
}
SOME = [("rows", "rows last"), ("rows put in", "rows first"), ("a triangle", "rows last, batch behind")]


@torch.no_grad()
@pytest.mark.parametrize(
    "name, layout, compiler",
    [*((r, k, "eager") for r in RESULTS for k in LAYOUTS), *((*one, "aot_eager") for one in SOME)],
)
def test_results_lie_as_in_eager(name: str, layout: str, compiler: str) -> None:
    sizes, view = LAYOUTS[layout]

    def step(memory: Tensor, x: Tensor, start: int) -> Any:
        k, end = view(memory), start + x.shape[1]
        k[:, start:end] = x
        return RESULTS[name](k, start, end, x)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    mine, eager = torch.zeros(2, *sizes)
    start = 0
    for rows in (3, 2, 2):
        x = torch.rand(2, rows, 4)
        results, wanted = (list(r) if isinstance(r, (tuple, list)) else [r]
                           for r in (compiled(mine, x, start), step(eager, x, start)))  # fmt: skip
        torch.testing.assert_close(results, wanted)
        assert torch.equal(mine, eager)
        if name != "a view of a result too":
            assert list(map(Tensor.stride, results)) == list(map(Tensor.stride, wanted))
        start += rows
    assert fxpass.reports()[-1].rewritten and not fxpass.reports()[-1].refused


@torch.no_grad()
@pytest.mark.parametrize("is_handed_in", [False, True])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_what_is_computed_from_a_written_buffer_lies_as_in_eager(layout: str, is_handed_in: bool) -> None:
    """AOTAutograd makes the write functional: its result is another tensor, which some operators lay out in their own way."""
    sizes, view = LAYOUTS[layout]

    def step(memory: Tensor, x: Tensor, start: int) -> list[Tensor]:
        k = memory if is_handed_in else view(memory)
        k[:, start : start + 1] = x
        k[:, start : start + 1].mul_(0.5)
        return [k * 2, k[:, : start + 1].sum(1), (k + x).exp()]

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "aot_eager"})
    mine, eager = (view(t) if is_handed_in else t for t in torch.zeros(2, *sizes))
    for start in (1, 2, 3):
        x = torch.rand(2, 1, 4)
        results, wanted = compiled(mine, x, start), step(eager, x, start)
        torch.testing.assert_close(results, wanted)
        assert list(map(Tensor.stride, results)) == list(map(Tensor.stride, wanted))
    assert fxpass.reports()[-1].rewritten >= 3 and not fxpass.reports()[-1].refused


@torch.no_grad()
def test_attention_is_not_copied() -> None:
    def step(k: Tensor, x: Tensor, start: int) -> Tensor:
        k[:, :, start : start + 1] = x
        return sdpa(x, k[:, :, : start + 1], k[:, :, : start + 1])

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for start in range(3):
        compiled(torch.zeros(2, 2, 8, 4), torch.rand(2, 2, 1, 4), start)
    after = fxpass.reports()[-1].after
    assert "scaled_dot_product_attention" in after and "permute" not in after


LAST_ROWS: dict[str, Callable[[Tensor, int], Any]] = {
    "a slice": lambda k, e: (k[:, :e] * 2)[:, -2:],
    "an element": lambda k, e: (k[:, :e] * 2)[0, -1],
    "of sums": lambda k, e: k[:, :e].cumsum(1)[:, -1:].mT,
    "of what is sorted": lambda k, e: [k[:, :e].sort(1).values[:, :3], e],
    "of a copy": lambda k, e: k[:, :e].clone()[:, -1],
    "of new memory": lambda k, e: torch.zeros(1, 8, 4).copy_(k)[:, e - 1 : e],
    "two views of them": lambda k, e: (lambda rows: (rows, rows[:, :1]))((k[:, :e] * 2)[:, -2:]),
}


@torch.no_grad()
@pytest.mark.parametrize("name, compiler", [*((name, "eager") for name in LAST_ROWS), ("a slice", "aot_eager")])
def test_rows_of_what_the_graph_makes_are_a_result(name: str, compiler: str) -> None:
    """They are copied. What the caller writes to one result is in the other."""

    def step(k: Tensor, x: Tensor, at: int) -> Any:
        k[:, at : at + 1] = x
        return LAST_ROWS[name](k, at + 1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler, "strict": True})
    mine, eager = torch.zeros(2, 1, 8, 4)
    for at in (3, 4, 5, 2):
        x = torch.rand(1, 1, 4)
        results, wanted = ([*r] if isinstance(r, (tuple, list)) else [r] for r in (compiled(mine, x, at), step(eager, x, at)))
        results[0].mul_(2), wanted[0].mul_(2)
        torch.testing.assert_close(results, wanted)
        assert torch.equal(mine, eager)
    assert fxpass.reports()[-1].rewritten
