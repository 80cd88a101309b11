"""Where an input lies, and how far apart its elements are, is no reason to compile: one core serves views of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import fxpass

N, D = 48, 8


def step(x: Tensor, k: Tensor, start: int) -> Tensor:
    end = start + x.shape[1]
    k[:, start:end] = x
    return scaled_dot_product_attention(x, k[:, :end], k[:, :end])


VIEWS: dict[str, Callable[[int], Tensor]] = {
    "a row of a series": lambda i: SERIES[:, i : i + 1],
    "the last row of a longer series": lambda i: torch.rand(2, 5 + i, D)[:, -1:],
    "a row of a longer series": lambda i: torch.rand(2, 5 + i, D)[:, i : i + 1],
    "columns of a wider row": lambda i: torch.rand(2, 1, D + i)[..., :D],
    "turned": lambda i: torch.rand(D, 2 + i)[:, :2].t()[:, None],
    "every second": lambda i: torch.rand(2, 1, D * (i + 1))[..., :: i + 1],
    "of one row each": lambda i: torch.rand(1, 5 + i, D)[:, i : i + 1],
    "a layer of many": lambda i: torch.rand(2, 2 + i, 1, D)[:, i],
}
SERIES = torch.rand(2, 40, D)


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("view", list(VIEWS))
def test_rows_that_are_views(view: str, compiler: str, compiled_parts: list[str]) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    mine = torch.zeros(VIEWS[view](0).shape[0], N, D)
    eager = mine.clone()
    for i in range(7):
        x = VIEWS[view](i)
        torch.testing.assert_close(compiled(x, mine, 2 + i), step(x, eager, 2 + i))
        assert torch.equal(mine, eager)
    assert compiled_parts.count("core") <= 1 and not fxpass.reports()[-1].outside


PERMUTED: dict[str, Callable[[int], Tensor]] = {
    "a part, outermost last": lambda i: torch.rand(D, 5 + i, 2)[:, i : i + 1].permute(2, 1, 0),
    "several rows": lambda i: torch.rand(D, 5 + i, 2)[:, :2].permute(2, 1, 0),
    "columns first": lambda i: torch.rand(2, D, 5 + i)[..., -2:].mT,
    "rows of one batch": lambda i: torch.rand(3, 5 + i, 1, D)[:2, i].expand(2, 1, D).transpose(0, 1).transpose(0, 1),
    "batches innermost": lambda i: torch.rand(3, D, 5 + i)[:, :, 2:4].permute(2, 0, 1),
    "expanded": lambda i: torch.rand(1, 5 + i, D)[:, i : i + 1].expand(2, 1, D),
}


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("view", list(PERMUTED))
def test_results_lie_as_eagers(view: str, compiler: str, compiled_parts: list[str]) -> None:
    """What is computed from an input has its dims in the order in which those of the input lie."""

    def both(x: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
        end = start + x.shape[1]
        k[:, start:end] = x
        return x + k[:, :end].sum(1, keepdim=True), x * 2

    compiled = torch.compile(both, backend="kvfix", options={"compiler": compiler})
    mine, eager = torch.zeros(2, 2, N, D)
    for i in range(5):
        x = PERMUTED[view](i)
        results = zip(compiled(x, mine, 2 + 3 * i), both(x, eager, 2 + 3 * i), strict=True)
        for found, expected in results:
            torch.testing.assert_close(found, expected, check_stride=x.shape[1] > 1)
            assert found.squeeze().stride() == expected.squeeze().stride()
        assert torch.equal(mine, eager)
    assert compiled_parts.count("core") <= 2


@pytest.mark.inductor
@torch.no_grad()
def test_rows_that_are_views_behind_inductor(compiled_parts: list[str]) -> None:
    compiled = torch.compile(step, backend="kvfix")
    mine, eager = torch.zeros(2, N, D), torch.zeros(2, N, D)
    for i in range(6):
        x = VIEWS["a row of a longer series"](i)
        torch.testing.assert_close(compiled(x, mine, 2 + i), step(x, eager, 2 + i))
        assert torch.equal(mine, eager)
    assert compiled_parts.count("core") == 1


CACHES: dict[str, Callable[[int], Tensor]] = {
    "one of a pool": lambda r: torch.zeros(8, 2, N, D)[r],
    "one of a pool, rows apart": lambda r: torch.zeros(2, N, 8, D)[:, :, r],
    "the front of a longer one": lambda r: torch.zeros(1, N + r, D)[:, :N],
    "turned": lambda r: torch.zeros(N, 2, D).transpose(0, 1),
}


@torch.no_grad()
@pytest.mark.parametrize("cache", list(CACHES))
def test_caches_that_are_views(cache: str, compiled_parts: list[str]) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for request in range(7):
        mine, eager = CACHES[cache](request), CACHES[cache](request)
        for start, n in ((0, 4), (4, 1), (5, 1), (6, 1)):
            x = torch.rand(mine.shape[0], n, D)
            torch.testing.assert_close(compiled(x, mine, start), step(x, eager, start))
            assert torch.equal(mine, eager)
    assert compiled_parts.count("core") <= 3 and not any(r.corrected for r in fxpass.reports())


@torch.no_grad()
def test_a_cache_that_lies_otherwise_each_time_is_corrected(compiled_parts: list[str]) -> None:
    """Large, written and not contiguous: a core for each stride, until there are too many."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for i in range(14):
        mine = torch.rand(2, N + i, D)[:, :N]
        eager, x = mine.clone(), torch.rand(2, 1, D)
        torch.testing.assert_close(compiled(x, mine, 2 + i), step(x, eager, 2 + i))
        assert torch.equal(mine, eager)
    report = fxpass.reports()[-1]
    assert report.corrected == ["L['k'].stride()[0]"] and not report.outside
    assert len(compiled_parts) < 14


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_an_input_that_lies_in_the_cache_is_not_copied(compiler: str) -> None:
    """What is read after the write is what was written, also through an input that is a view of the cache."""

    def both(x: Tensor, k: Tensor, seen: Tensor, start: int) -> Tensor:
        k[:, start : start + 1] = x
        return seen * 2 + k[:, : start + 1].sum(1, keepdim=True)

    def calls() -> Iterator[tuple[Tensor, ...]]:
        for i in range(5):
            k = torch.rand(2, N + i, D)
            yield torch.rand(2, 1, D), k[:, :N], k[:, 2 + i : 3 + i]

    compiled = torch.compile(both, backend="kvfix", options={"compiler": compiler})
    for i, (x, k, seen) in enumerate(calls()):
        whole = torch.empty(2, N + i, D)
        eager = whole[:, :N].copy_(k)
        expected = both(x, eager, whole[:, 2 + i : 3 + i], 2 + i)
        torch.testing.assert_close(compiled(x, k, seen, 2 + i), expected)
