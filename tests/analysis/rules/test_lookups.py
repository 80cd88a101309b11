"""Lookups along an axis of which only a part was read: an index past what is valid is an error, as it is in eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass

F = torch.nn.functional

LOOKUPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "index_select": lambda k, i: k.index_select(1, i).sum(1),
    "gather": lambda k, i: k.gather(1, i[None, :, None].expand(2, -1, 3)).sum(1),
    "embedding": lambda k, i: F.embedding(i, k[0]).sum(0),
    "index": lambda k, i: k[:, i].sum(1),
    "index_of_two_dims": lambda k, i: k[torch.tensor([1, 0]), i].sum(0),
    "transposed": lambda k, i: k.mT.index_select(2, i).sum(2),
    "int32": lambda k, i: k.index_select(1, i.int()).sum(1),
}


def outcome(step: Callable[..., Tensor], *args: object) -> Tensor | None:
    try:
        return step(*args)
    except (IndexError, RuntimeError):
        return None


def check(look: Callable[[Tensor, Tensor], Tensor], rows: list[list[int]], compiler: str) -> None:
    def step(c: Tensor, x: Tensor, p: int, i: Tensor) -> Tensor:
        c[:, p : p + 1] = x
        return look(c[:, : p + 1], i)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    mine, eager = torch.full((2, 2, 8, 3), 9.0)
    found = []
    for p in (6, 5, 4, 3, 2, 1):
        for wanted in rows:
            x, i = torch.rand(2, 1, 3), torch.tensor(wanted)
            expected, got = outcome(step, eager, x, p, i), outcome(compiled, mine, x, p, i)
            assert (expected is None) == (got is None), (p, wanted, got)
            if expected is not None:
                torch.testing.assert_close(got, expected)
            found.append(expected is None)
    assert any(found) and not all(found)
    assert fxpass.reports()[-1].refused == 0


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", list(LOOKUPS))
def test_past_the_valid_rows(name: str, compiler: str) -> None:
    check(LOOKUPS[name], [[0, 3], [1, 4]], compiler)


@torch.no_grad()
@pytest.mark.inductor
@pytest.mark.parametrize("name", ["index_select", "index"])
def test_past_the_valid_rows_behind_inductor(name: str) -> None:
    check(LOOKUPS[name], [[0, 3], [1, 4]], "inductor")


@torch.no_grad()
@pytest.mark.parametrize("name", ["index", "index_of_two_dims"])
def test_a_negative_index_counts_from_the_last_valid_row(name: str) -> None:
    check(LOOKUPS[name], [[-1, 0], [-2, -5]], "aot_eager")


@torch.no_grad()
def test_more_than_is_valid_is_gathered_along_another_dim() -> None:
    """`gather` takes no more along the other dims than there is."""
    check(lambda k, i: k.gather(2, i[None, :, None].expand(2, 4, 1) * 0).sum(1), [[0, 1, 2, 3]], "eager")


def truths(k: Tensor) -> Tensor:
    return (k > 0.5).long()


AS_LONG: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "expanded": lambda k, x, t: x.expand(-1, k.shape[1], -1).gather(2, truths(k)).sum(1),
    "repeated": lambda k, x, t: x.repeat(1, k.shape[1], 1).gather(2, truths(k)).sum(1),
    "handed in": lambda k, x, t: t.gather(2, truths(k)).sum(1),
    "transposed": lambda k, x, t: t.mT.gather(1, truths(k).mT).sum(2),
    "take_along_dim": lambda k, x, t: torch.take_along_dim(x, truths(k)[..., :1], 2).sum(1),
    "weights of a loss": lambda k, x, t: F.cross_entropy(k.mT, truths(k)[..., 0], weight=torch.arange(3.0)),
    "a longer buffer": lambda k, x, t: torch.arange(60.0).view(2, 10, 3).gather(2, truths(k)).sum(1),
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", AS_LONG)
def test_places_from_a_buffer_in_a_tensor_that_is_as_long_as_its_valid_part(name: str) -> None:
    def step(c: Tensor, x: Tensor, p: int, t: Tensor) -> Tensor:
        c[:, p : p + 1] = x
        return AS_LONG[name](c[:, : p + 1], x, t)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.full((2, 2, 8, 3), 9.0)
    for p in range(1, 6):
        x, t = torch.rand(2, 1, 3), torch.rand(2, p + 1, 3)
        torch.testing.assert_close(compiled(mine, x, p, t), step(eager, x, p, t))
    assert not any(report.unfit for report in fxpass.reports())


PLACES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gather, of an order": lambda k, i: k.gather(1, i.sort(-1).values[:, 1:, None].expand(-1, -1, 3)),
    "gather, of rows that are expanded": lambda k, i: k.gather(1, i[..., None].expand(-1, i.shape[1], 3)),
    "gather, of rows as they are": lambda k, i: k[..., 0].gather(1, i),
    "index_select": lambda k, i: k.index_select(1, i[0].view(-1)),
    "embedding": lambda k, i: F.embedding(i[0].flip(0), k[0])[None],
    "index": lambda k, i: k[:, i[0].reshape(i.shape[1])],
}


@torch.no_grad()
@pytest.mark.parametrize("name", list(PLACES))
def test_places_that_are_rows_themselves(name: str) -> None:
    """What lies behind the valid places is no place: a buffer of them holds anything there."""

    def step(c: Tensor, places: Tensor, x: Tensor, p: int) -> Tensor:
        c[:, p : p + 1], places[:, p : p + 1] = x, p // 2
        return PLACES[name](c[:, : p + 1], places[:, : p + 1]).sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    mine, eager = torch.full((2, 2, 8, 3), 9.0)
    places = torch.tensor([[[0, 0, 0, *[10**6] * 5]]]).repeat(2, 2, 1)
    for p in (3, 4, 5, 6, 1):
        x = torch.rand(2, 1, 3)
        torch.testing.assert_close(compiled(mine, places[0], x, p), step(eager, places[1], x, p))
