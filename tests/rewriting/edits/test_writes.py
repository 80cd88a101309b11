"""Rows that go in through views of a buffer, and rows that come from the buffer itself: eager's buffers, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass

B, H, S, D = 2, 2, 16, 4
VIEWS: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "view": ((B, S, H * D), lambda k: k.view(B, S, H, D).transpose(1, 2)),
    "unflatten": ((B, S, H * D), lambda k: k.unflatten(2, (H, D)).transpose(1, 2)),
    "permute": ((S, B, H * D), lambda k: k.view(S, B, H, D).permute(1, 2, 0, 3)),
    "of one dim": ((B * S * H * D,), lambda k: k.view(B, S, H, D).movedim(1, 2)),
    "layer": ((3, B, S, H * D), lambda k: k[1].view(B, S, H, D).transpose(1, 2)),
    "layer in the middle": ((B, S, 3, H * D), lambda k: k[:, :, 1].unflatten(2, (H, D)).transpose(1, 2)),
    "layer last": ((B, S, H * D, 3), lambda k: k[..., 1].unflatten(2, (H, D)).transpose(1, 2)),
    "packed": ((B, S, 2 * H * D), lambda k: k.chunk(2, -1)[1].unflatten(2, (H, D)).transpose(1, 2)),
    "narrow": ((B + 1, S, H * D), lambda k: k.narrow(0, 1, B).view(B, S, H, D).transpose(1, 2)),
    "squeeze": ((B, 1, S, H * D), lambda k: k.squeeze(1).view(B, S, H, D).transpose(1, 2)),
    "viewed twice": ((B, S, H * D), lambda k: k.view(B, S, H, D).transpose(1, 2).unflatten(3, (2, 2)).flatten(3)),
    "transposed": ((B, H * D, S), lambda k: k.mT.unflatten(2, (H, D)).transpose(1, 2)),
    "as_strided": ((B, S, H * D), lambda k: k.as_strided((B, H, S, D), (S * H * D, D, H * D, 1))),
}


def by_slice(c: Tensor, p: int, x: Tensor) -> None:
    c[:, :, p : p + 1] = x


def by_narrow(c: Tensor, p: int, x: Tensor) -> None:
    c.narrow(2, p, 1).copy_(x)


def by_index(c: Tensor, p: int, x: Tensor) -> None:
    c[:, :, p] = x[:, :, 0]


def by_arithmetic(c: Tensor, p: int, x: Tensor) -> None:
    c[:, :, p : p + 1].mul_(0.5).add_(x)


WRITES = (by_slice, by_narrow, by_index, by_arithmetic)


def write_and_read(view: str, write: Callable[..., None], compiler: str) -> None:
    shape, viewed = VIEWS[view]

    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        rows = viewed(k)
        write(rows, p, x)
        return rows[:, :, : p + 1].sum(2)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    mine = torch.rand(shape)
    eager = mine.clone()
    for p in (3, 4, 5, 8):
        x = torch.rand(B, H, 1, D)
        torch.testing.assert_close(compiled(mine, x, p), step(eager, x, p))
        torch.testing.assert_close(mine, eager)
    assert fxpass.reports()[-1].refused == 0 and fxpass.reports()[-1].rewritten >= 2


@torch.no_grad()
@pytest.mark.parametrize("view", list(VIEWS))
def test_written_through_a_view(view: str) -> None:
    write_and_read(view, WRITES[list(VIEWS).index(view) % len(WRITES)], "aot_eager")


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("write", WRITES, ids=lambda f: f.__name__)
def test_written_through_the_commonest_view(write: Callable[..., None], compiler: str) -> None:
    write_and_read("view", write, compiler)


@torch.no_grad()
@pytest.mark.inductor
@pytest.mark.parametrize("view", ["view", "packed", "viewed twice"])
def test_written_through_a_view_behind_inductor(view: str) -> None:
    write_and_read(view, by_slice, "inductor")


def first_row(c: Tensor, p: int) -> None:
    c[p : p + 1] = c[:1]


def row_before(c: Tensor, p: int) -> None:
    c[p] = c[p - 1]


def added_row(c: Tensor, p: int) -> None:
    c[p] += c[p - 1]


def expanded(c: Tensor, p: int) -> None:
    c[p : p + 2] = c[0].expand(2, c.shape[1])


def transposed(c: Tensor, p: int) -> None:
    c[p : p + 1] = c.T[:, 2:3].T


def halves(c: Tensor, p: int) -> None:
    k, v = c.chunk(2, 1)
    k[p : p + 1] = v[:1]
    v[p] = k[p]


def through_a_view(c: Tensor, p: int) -> None:
    c.view(-1, 2, 2)[p] = c[1].view(2, 2)


def column(c: Tensor, p: int) -> None:
    c[p, :2] = c[:2, 0]


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize(
    "copy",
    [first_row, row_before, added_row, expanded, transposed, halves, through_a_view, column],
    ids=lambda f: f.__name__,
)
def test_rows_copied_within_a_buffer(copy: Callable[..., None], compiler: str) -> None:
    def step(c: Tensor, p: int) -> Tensor:
        copy(c, p)
        return c[: p + 1].sum(0)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    mine = torch.rand(16, 4)
    eager = mine.clone()
    for p in range(3, 8):
        torch.testing.assert_close(compiled(mine, p), step(eager, p))
        assert torch.equal(mine, eager)
    assert fxpass.reports()[-1].rewritten >= 2


@torch.library.custom_op("kvwrites::put", mutates_args=("c",))
def put(c: Tensor, x: Tensor, p: int) -> None:
    c[p : p + 1] = x


def of_a_list(c: Tensor, p: int) -> None:
    torch._foreach_add_([c[p : p + 1]], 1.0)


def of_two_lists(c: Tensor, p: int) -> None:
    torch._foreach_copy_([c[p : p + 1]], [c[:1] * 2])


def of_a_user(c: Tensor, p: int) -> None:
    put(c, c[:1] * 3, p)


def asserted(c: Tensor, p: int) -> None:
    torch._assert_async((c[: p + 1] >= 0).all())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("operator", [of_a_list, of_two_lists, of_a_user, asserted], ids=lambda f: f.__name__)
def test_operators_that_give_nothing(operator: Callable[..., None]) -> None:
    """What a writing operator gives is not looked at: `_foreach_add_` has no result."""

    def step(c: Tensor, p: int) -> Tensor:
        operator(c, p)
        return c[: p + 1].sum(0)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine = torch.rand(16, 4)
    eager = mine.clone()
    for p in range(3, 6):
        torch.testing.assert_close(compiled(mine, p), step(eager, p))
        assert torch.equal(mine, eager)
    assert not any("the pass failed" in report.unfit for report in fxpass.reports())
