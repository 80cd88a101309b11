"""Values that are put into a copy of the valid rows: a place past these is an error, as it is in eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_lookups import check
from torch import Tensor

import fxpass

aten = torch.ops.aten
ROWS = [[0, 3], [1, 4]]


def spread(i: Tensor) -> Tensor:
    return i[None, :, None].expand(2, -1, 3)


PUTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "index_put": lambda k, i: k.index_put((torch.tensor([[0], [1]]), i), torch.ones(2, 3)).sum(1),
    "index_put_": lambda k, i: (
        k.clone().index_put_((torch.arange(2)[:, None], i), torch.ones(3), True).cumsum(1).sum(1)
    ),
    "setitem": lambda k, i: put(k.clone(), (slice(None), i)).sum(1),
    "index_copy": lambda k, i: k.index_copy(1, i, torch.ones(2, 2, 3)).cumsum(1).sum(1),
    "index_copy_, transposed": lambda k, i: k.clone().mT.index_copy_(2, i, torch.ones(2, 3, 2)).sum(2),
    "index_add": lambda k, i: k.index_add(1, i, k[:, :2] * 0 + 1, alpha=2).amax(1),
    "index_fill_": lambda k, i: k.clone().index_fill_(1, i, 2.0).sum(1),
    "scatter": lambda k, i: k.scatter(1, spread(i), torch.ones(2, 4, 3)).sum(1),
    "scatter_, a number": lambda k, i: k.clone().scatter_(-2, spread(i), 3.0).cumsum(1).sum(1),
    "scatter_add": lambda k, i: k.scatter_add(1, spread(i), torch.ones(2, 4, 3)).sum(1),
    "scatter_reduce": lambda k, i: k.scatter_reduce(1, spread(i), torch.ones(2, 4, 3), "amax").sum(1),
}


def put(k: Tensor, index: tuple[slice, Tensor], rows: Tensor | None = None) -> Tensor:
    k[index] = torch.arange(6.0).view(2, 1, 3) if rows is None else rows
    return k


@torch.no_grad()
@pytest.mark.parametrize("name", list(PUTS))
def test_past_the_valid_rows(name: str) -> None:
    check(PUTS[name], ROWS, "eager")


@torch.no_grad()
@pytest.mark.parametrize("name", ["index_put", "setitem", "index_copy_, transposed", "scatter_add"])
def test_past_the_valid_rows_with_aot_autograd(name: str) -> None:
    check(PUTS[name], ROWS, "aot_eager")


@torch.no_grad()
@pytest.mark.parametrize("name", ["index_put", "setitem"])
def test_a_negative_index_counts_from_the_last_valid_row(name: str) -> None:
    check(PUTS[name], [[-1, 0], [-2, -5]], "eager")


def places(k: Tensor) -> Tensor:
    """Of each row of ``k`` one of five places, some of them twice."""
    return (torch.arange(k.shape[1]) * 3 + 1) % 5 % 4


def deep(k: Tensor) -> Tensor:
    return places(k)[None, :, None].expand(2, -1, 3)


def said(k: Tensor) -> Tensor:
    """One of five places, which each row of ``k`` holds itself."""
    return k[0, :, 0].mul(5).long()


def punished(k: Tensor) -> Tensor:
    """What has been said becomes less likely."""
    scores = torch.linspace(-1, 1, 10).view(2, 5)
    said = k[..., 0].sigmoid().mul(5).long()
    return scores.scatter(1, said, scores.gather(1, said) / 1.3)


ALL_ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "scatter": lambda k: torch.ones(2, 5, 3).scatter(1, deep(k), k),
    "scatter_, a number": lambda k: torch.ones(2, 5, 3).scatter_(-2, deep(k), 3.0),
    "scatter_add": lambda k: torch.ones(2, 5, 3).scatter_add(1, deep(k), k),
    "scatter_add_, counts": lambda k: torch.zeros(2, 5).scatter_add_(1, deep(k)[..., 0], torch.ones(k.shape[:2])),
    "scatter_reduce, a sum": lambda k: torch.ones(2, 5, 3).scatter_reduce(1, deep(k), k, "sum"),
    "scatter_reduce, the largest": lambda k: torch.ones(2, 5, 3).scatter_reduce(1, deep(k), k, "amax", include_self=False),
    "index_add": lambda k: torch.ones(2, 5, 3).index_add(1, places(k), k, alpha=2),
    "index_copy_": lambda k: torch.ones(2, 5, 3).index_copy_(1, places(k), k),
    "index_fill": lambda k: torch.ones(2, 5, 3).index_fill(1, places(k), 2.0),
    "index_put": lambda k: put(torch.ones(2, 5, 3), (slice(None), places(k)), k),
    "index_put, a number": lambda k: put(torch.ones(2, 5, 3), (slice(None), places(k)), torch.tensor(2.0)),
    "index_put, added": lambda k: torch.ones(5, 2, 3).index_put((places(k),), k.transpose(0, 1), True),
    "index_put_, a count": lambda k: torch.zeros(5).index_put_((said(k),), torch.tensor(1.0), accumulate=True),
    "index_put, a number added": lambda k: torch.ones(5, 2, 3).index_put((said(k),), torch.ones(1), True),
    "index_put, a row in each": lambda k: put(torch.ones(2, 5, 3), (slice(None), said(k)), torch.arange(3.0)),
    "index_put, rows added": lambda k: aten.index_put(torch.ones(2, 5, 3), [None, said(k)], torch.ones(2, 1, 3), True),
    "index_put_, added in two dims": lambda k: torch.zeros(5, 5).index_put_((said(k)[:, None], said(k)), torch.ones(()), True),
    "punished": punished,
}


@torch.no_grad()
@pytest.mark.parametrize(
    "name, compiler",
    [*((name, "eager") for name in ALL_ROWS), *((name, "aot_eager") for name in ("scatter", "scatter_add", "index_put"))],
)
def test_as_many_rows_as_are_valid(name: str, compiler: str) -> None:
    look = ALL_ROWS[name]

    def step(cache: Tensor, p: int) -> Tensor:
        cache[:, p] = row
        return look(cache[:, : p + 1])

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler, "strict": True})
    mine, row = torch.rand(2, 16, 3), torch.rand(2, 3)
    mine[:, 4:] = torch.nan
    other = mine.clone()
    for p in range(3, 9):
        torch.testing.assert_close(compiled(mine, p), step(other, p))
    report = fxpass.reports()[-1]
    assert report.rewritten and [name for name, static, _ in report.parts if static] == ["core"]


@torch.no_grad()
@pytest.mark.parametrize("way", ["prod", "mean"])
def test_rows_that_would_count_twice_are_refused(way: str) -> None:
    def step(cache: Tensor, p: int) -> Tensor:
        return torch.ones(2, 5, 3).scatter_reduce(1, deep(cache[:, : p + 1]), cache[:, : p + 1], way)

    compiled, cache = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.rand(2, 16, 3)
    with pytest.warns(fxpass.KvfixWarning, match="KV125"):
        for p in (3, 4, 5):
            torch.testing.assert_close(compiled(cache, p), step(cache, p))


def taken_in_order(k: Tensor, i: Tensor) -> Tensor:
    """As many values are taken as the mask has places that are True, in the order of the valid ones."""
    new = torch.arange(48.0)
    mask = (torch.arange(k.shape[1]) % 2 == 0)[:, None]
    return k.masked_scatter(mask, new).sum(1) + k.clone().masked_scatter_(k > 0.5, new).sum(1)


def put_slices(k: Tensor, i: Tensor) -> Tensor:
    last = k.slice_scatter(torch.ones(2, 1, 3), 1, -1).slice_scatter(torch.zeros(2, 1, 3), 1, 0, 1)
    shifted = k.slice_scatter(k[:, 1:] * 2, 1, 0, -1) + k.slice_scatter(k[:, :-1].half(), 1, 1, k.shape[1])
    return last.cumsum(1).sum(1) + shifted.sum(1) + torch.cat([k, k[:, :1]], 1).slice_scatter(k, 1, 1).cumsum(1).sum(1)


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("look", [taken_in_order, put_slices])
def test_what_is_put_where_no_index_says(look: Callable[[Tensor, Tensor], Tensor], compiler: str) -> None:
    check(lambda k, i: look(k, i) + k.index_select(1, i).sum(1), ROWS, compiler)


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "two rows in one": lambda k: k.slice_scatter(torch.ones(2, 2, 3), 1, 0, 2),
    "one row in two": lambda k: k.slice_scatter(torch.ones(2, 1, 3), 1, 1, 3),
    "one row to the end": lambda k: k.slice_scatter(torch.ones(2, 1, 3), 1, 2),
    "a row behind its end": lambda k: k.slice_scatter(torch.ones(2, 1, 3), 1, 2, 1),
    "a row of a smaller batch": lambda k: k.slice_scatter(torch.ones(1, 1, 3), 1, -1),
    "a row without a batch": lambda k: k.slice_scatter(torch.ones(1, 3), 1, -1),
    "a narrower row": lambda k: k.mT.slice_scatter(torch.ones(2, 1, 1), 2, -1).mT,
    "a broadcast element": lambda k: k.select_scatter(torch.ones(1, 3), 1, -1),
    "a flat element": lambda k: k.select_scatter(torch.ones(3), 1, 0),
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", WRONG)
def test_what_has_another_size_is_an_error_as_in_eager(name: str) -> None:
    """Dynamo does not see it, as these operators take all sizes of tensors without data."""

    def step(k: Tensor, x: Tensor, s: int) -> Tensor:
        k[:, s : s + 1] = x
        return WRONG[name](k[:, : s + 1]).sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = torch.zeros(2, 8, 3), torch.zeros(2, 8, 3)
    for s in (1, 2, 3, 1, 0):
        x = torch.rand(2, 1, 3)
        try:
            want = step(theirs, x, s)
        except RuntimeError:
            with pytest.raises(Exception, match=r"(?i)size|shape|expand|slice"):
                compiled(ours, x, s)
        else:
            torch.testing.assert_close(compiled(ours, x, s), want)
