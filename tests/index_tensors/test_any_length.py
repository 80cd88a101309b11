"""Index tensors that come in any length: their numbers are guards, and neither graphs for each length nor breaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.functional import hardtanh, relu
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass
from fxpass.index_tensors.any_length import number

PROMPTS = ((4, 1, 1), (6, 1), (8, 1, 3), (5, 1))
Start = Callable[[Tensor, int], int | Tensor]


def places(start: int, rows: int) -> Tensor:
    return torch.arange(start, start + rows)


def of_each_row(start: int, rows: int) -> Tensor:
    return places(start, rows)[None].expand(2, -1)


def in_32_bits(start: int, rows: int) -> Tensor:
    return places(start, rows).int()


def mask(start: int, rows: int) -> Tensor:
    return torch.ones(2, start + rows, dtype=torch.int64)


def column(start: int, rows: int) -> Tensor:
    return places(start, rows)[:, None]


STARTS: dict[str, tuple[Callable[[int, int], Tensor], Start]] = {
    "first": (places, lambda at, n: int(at[0])),
    "last": (places, lambda at, n: at[-1].item() + 1 - n),
    "last of 32 bits": (in_32_bits, lambda at, n: int(at[-1] + 1) - n),
    "a bound": (places, lambda at, n: at[0]),
    "of the first row": (of_each_row, lambda at, n: int(at[0, 0])),
    "largest": (of_each_row, lambda at, n: int(at.max()) + 1 - n),
    "smallest, of a column": (column, lambda at, n: at.view(-1).amin().item()),
    "sum of a mask": (mask, lambda at, n: int(at[0].sum()) - n),
    "count of a mask": (mask, lambda at, n: int((at[1] > 0).count_nonzero()) - n),
    "of a copy that is written": (places, lambda at, n: int(at.clone().add_(2).min()) - 2),
    "of a view that is written": (places, lambda at, n: int((at + 0)[:1].mul_(2)[0]) // 2),
    "asked": (places, lambda at, n: int(at[0]) if at.numel() == 1 or (at[1:] > at[:-1]).all() else 0),
}


@torch.no_grad()
@pytest.mark.parametrize("name", list(STARTS))
def test_prompts_of_any_length(name: str) -> None:
    make, start_of = STARTS[name]

    def step(k: Tensor, x: Tensor, at: Tensor) -> Tensor:
        start = start_of(at, x.shape[1])
        end = start + x.shape[1]
        k[:, start:end] = x
        seen = torch.arange(end)[None] <= torch.arange(start, end)[:, None]
        return sdpa(x, k[:, :end], k[:, :end], attn_mask=seen)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for prompt in PROMPTS:
        start, mine, eager = 0, torch.zeros(2, 16, 4), torch.zeros(2, 16, 4)
        for rows in prompt:
            x, at = torch.rand(2, rows, 4), make(start, rows)
            torch.testing.assert_close(compiled(mine, x, at), step(eager, x, at.clone()))
            assert torch.equal(mine, eager)
            start += rows
    assert counters["stats"]["unique_graphs"] <= 5 and not counters["graph_break"]
    steps = [r for r in fxpass.reports() if r.rewritten]
    assert steps and not any(r.refused or r.unfit for r in fxpass.reports())


class Lengths:
    def __init__(self, rows: int, dtype: torch.dtype) -> None:
        self.k, self.lens = torch.zeros(rows, 16, 4), torch.zeros(rows, dtype=dtype)


def longest_before(c: Lengths, x: Tensor) -> int:
    longest = int(c.lens.max()) + x.shape[1]
    c.lens += x.shape[1]
    return longest


def longest_after(c: Lengths, x: Tensor) -> int:
    c.lens.add_(1)
    return int(c.lens.amax())


def last_through_a_view(c: Lengths, x: Tensor) -> int:
    last = c.lens[-1:]
    c.lens += 1
    return last.item()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("longest", [longest_before, longest_after, last_through_a_view])
def test_batches_of_many_sizes(longest: Callable[..., int], dtype: torch.dtype) -> None:
    """Two sizes are fixed; all others share one graph of a step."""

    def step(c: Lengths, x: Tensor) -> Tensor:
        c.k[torch.arange(x.shape[0])[:, None], c.lens[:, None]] = x
        end = longest(c, x)
        seen = torch.arange(end)[None] < c.lens[:, None]
        return sdpa(x, c.k[:, :end], c.k[:, :end], attn_mask=seen[:, None])

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for rows in (2, 3, 5, 4, 6):
        mine, eager = Lengths(rows, dtype), Lengths(rows, dtype)
        for _ in range(3):
            x = torch.rand(rows, 1, 4)
            torch.testing.assert_close(compiled(mine, x), step(eager, x))
            assert torch.equal(mine.k, eager.k) and torch.equal(mine.lens, eager.lens)
    report = fxpass.reports()[-1]
    assert counters["stats"]["unique_graphs"] <= 6 and not counters["graph_break"]
    assert [name for name, static, _ in report.parts if static] == ["core"] and not report.outside


NOT_FOLLOWED: dict[str, Callable[[Tensor, Tensor], int]] = {
    "no rule": lambda at, other: int(at.cumsum(0)[-1]),
    "of two": lambda at, other: int((at + other)[0]),
    "written without a rule": lambda at, other: int(at.bitwise_xor_(3)[0]),
    "a view without a rule is written": lambda at, other: (at.as_strided((2,), (1,)).add_(1), int(at[0]))[1],
    "windows are written": lambda at, other: (at.unfold(0, 1, 2).add_(other[0]), int(at[0]))[1],
    "a diagonal is written": lambda at, other: (at[None].diagonal().zero_(), int(at[0]))[1],
    "a view of what is computed is written": lambda at, other: _after(t := at + 0, lambda: t.as_strided((1,), (1,)).add_(2)),
    "written as an array": lambda at, other: (at.numpy().__setitem__(0, 5), int(at[0]))[1],
    "in place by its place": lambda at, other: _after(t := at - 2, lambda: relu(t, True)),
    "between bounds, by its place": lambda at, other: _after(at, lambda: hardtanh(at, 3, 4, True)),
    "truths chosen among": lambda at, other: int((at > 2).where(at < 100, at > 0).sum()),
    "a rule of other sizes": lambda at, other: int(at[None][torch.tensor([0])].sum(0).max()),
}


def _after(t: Tensor, write: Callable[[], Tensor]) -> int:
    write()
    return int(t[0]) + 1


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", list(NOT_FOLLOWED))
def test_what_is_not_followed_is_eagers(name: str) -> None:
    def step(k: Tensor, at: Tensor, other: Tensor) -> Tensor:
        return k[:, : NOT_FOLLOWED[name](at, other)].sum(1)

    compiled, k = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.rand(2, 40)
    for rows in (2, 3, 5, 4, 6):
        mine, eager = (torch.arange(1, rows + 1) for _ in range(2))
        torch.testing.assert_close(compiled(k, mine, mine[:1] + 1), step(k, eager, eager[:1] + 1))
        assert torch.equal(mine, eager)


@torch.no_grad()
def test_two_views_of_one_memory() -> None:
    """What is written through the other one is read."""

    def step(k: Tensor, at: Tensor, other: Tensor) -> Tensor:
        other.add_(1)
        return k[:, : int(at[0])].sum(1)

    compiled, k = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.rand(2, 40)
    for rows, apart in ((2, True), (3, True), (5, True), (4, False), (6, False), (7, True)):
        mine, eager = (torch.arange(1, rows + 1) for _ in range(2))
        others = (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)) if apart else (mine[:2], eager[:2])
        torch.testing.assert_close(compiled(k, mine, others[0]), step(k, eager, others[1]))


@pytest.mark.parametrize(
    "text, shape, values, made",
    [
        ("getitem(v, -1)", (3,), (4, 5, 6), 6),
        ("max(getitem(v, 1))", (2, 2), (4, 9, 6, 7), 7),
        ("(t0 := add_(v, 1), t1 := max(t0), t1)[-1]", (2,), (4, 5), 6),
        ("all(gt(v, 3))", (2,), (4, 5), True),
        ("getitem(v, 2)", (2,), (4, 5), None),
        ("max(v)", (0,), (), None),
    ],
)
def test_number(text: str, shape: tuple[int, ...], values: tuple[int, ...], made: int | None) -> None:
    assert number(text, shape, values) == made
