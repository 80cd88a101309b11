"""Masks, biases and weights that the caller has cut to the valid length, as blocks get them that are compiled one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

ROWS, HEADS, CAPACITY, DIM = 2, 2, 12, 4


class Block(nn.Module):
    """Keys and values; each kind reads them under something of their length."""

    def __init__(self, tail: float = 0.0) -> None:
        super().__init__()
        for name in "kv":
            self.register_buffer(name, torch.full((ROWS, HEADS, CAPACITY, DIM), tail))

    def forward(self, x: Tensor, at: int, given: Tensor) -> Tensor:
        end = at + x.shape[2]
        self.k[:, :, at:end] = x
        self.v[:, :, at:end] = x * 2
        return self.read(x, self.k[:, :, :end], self.v[:, :, :end], given)

    @staticmethod
    def given(rows: int, end: int) -> Tensor:
        """What is handed in, for ``rows`` new rows and ``end`` valid ones."""
        return torch.ones(end, end, dtype=torch.bool).tril()[None, None, end - rows :]

    def read(self, x: Tensor, k: Tensor, v: Tensor, given: Tensor) -> Tensor:
        return sdpa(x, k, v, attn_mask=given)


class FloatMask(Block):
    @staticmethod
    def given(rows: int, end: int) -> Tensor:
        return torch.zeros(end, end).masked_fill(~torch.ones(end, end, dtype=torch.bool).tril(), float("-inf"))[end - rows :]


class GivenBack(Block):
    """Rows meet an operator that has no rule, too."""

    def read(self, x: Tensor, k: Tensor, v: Tensor, given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return sdpa(x, k, v, attn_mask=given), k.mode(2).values


class ByHand(Block):
    """An additive bias for each head, before a softmax."""

    @staticmethod
    def given(rows: int, end: int) -> Tensor:
        return torch.arange(end).float().repeat(HEADS, rows, 1) / 8

    def read(self, x: Tensor, k: Tensor, v: Tensor, given: Tensor) -> Tensor:
        return (x @ k.mT + given).softmax(-1) @ v


class Filled(Block):
    def read(self, x: Tensor, k: Tensor, v: Tensor, given: Tensor) -> Tensor:
        return (x @ k.mT).masked_fill(~given, -1e9).softmax(-1) @ v


class Weighted(Block):
    """A weight for each row, along another dim than the rows of the cache."""

    @staticmethod
    def given(rows: int, end: int) -> Tensor:
        return torch.linspace(0, 1, end)

    def read(self, x: Tensor, k: Tensor, v: Tensor, given: Tensor) -> Tensor:
        return (v * given[:, None]).sum(2) + (given @ k).sum()


class LengthFirst(Block):
    """What is handed in lies in memory with the length first, and is a view."""

    @staticmethod
    def given(rows: int, end: int) -> Tensor:
        return torch.arange(2 * end * rows).view(end, 2, rows)[:, 0].remainder(3).float().t()

    def read(self, x: Tensor, k: Tensor, v: Tensor, given: Tensor) -> Tensor:
        return sdpa(x, k, v, attn_mask=given)


class ByItem(Block):
    """The position comes from an index tensor."""

    def __init__(self, tail: float = 0.0) -> None:
        super().__init__(tail)
        self.register_buffer("at", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor, at: int, given: Tensor) -> Tensor:
        start = int(self.at[0])
        self.at[0] = start + x.shape[2]
        return super().forward(x, start, given)


KINDS = [Block, FloatMask, ByHand, Filled, Weighted, LengthFirst, ByItem]


def decoded(kind: type[Block], compiler: str, tail: float, blocks: int = 2) -> None:
    """Decoding with some blocks of one class, each compiled for itself, compared with eager ones after each call."""
    counters.clear()
    mine, theirs = ([kind(tail) for _ in range(blocks)] for _ in range(2))
    for block in mine:
        block.compile(backend="kvfix", options={"compiler": compiler})
    at = 0
    with torch.no_grad():
        for n in (4, 1, 1, 1, 1):
            x = torch.rand(ROWS, HEADS, n, DIM)
            given = kind.given(n, at + n)
            for a, b in zip(mine, theirs, strict=True):
                torch.testing.assert_close(a(x, at, given), b(x, at, given))
                assert torch.equal(a.k.nan_to_num(), b.k.nan_to_num()) and torch.equal(a.v.nan_to_num(), b.v.nan_to_num())
            at += n


@pytest.mark.parametrize("tail", [0.0, float("nan")])
@pytest.mark.parametrize("kind", KINDS)
def test_one_core_for_all_steps_and_blocks(kind: type[Block], tail: float) -> None:
    decoded(kind, "eager", tail)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    report = fxpass.reports()[-1]
    assert report.rewritten >= 4 and not report.refused and not report.outside
    assert [static for name, static, _ in report.parts if name != "prologue"] == [True]


@pytest.mark.parametrize("kind", [Block, ByHand])
def test_what_stays_is_not_what_many_blocks_are_given_alike(kind: type[Block]) -> None:
    """A step calls each of them, and the position is the same for all."""
    decoded(kind, "eager", 0.0, blocks=9)
    assert counters["stats"]["unique_graphs"] == 2 and fxpass.reports()[-1].rewritten >= 4


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_a_mask_is_padded_beside_what_is_refused() -> None:
    decoded(GivenBack, "eager", float("nan"))
    report = fxpass.reports()[-1]
    assert report.refused and not report.outside


def test_through_aot_eager() -> None:
    decoded(Block, "aot_eager", float("nan"))
    assert counters["stats"]["unique_graphs"] == 2 and not fxpass.reports()[-1].refused


@pytest.mark.parametrize(
    "read",
    [
        lambda k, given: given.add_(1).sum() + k.sum(),  # written
        lambda k, given: (k.sum(), given[..., :2] * 1, given),  # returned
        lambda k, given: torch.histc(given, 3) + k.sum(),  # used by what has no rule
        lambda k, given: torch.fft.rfft(given).abs().sum() + (k * given[:, None]).sum(),  # by that, too
    ],
    ids=["written", "returned", "without a rule", "with and without"],
)
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_what_need_not_be_padded_is_not(read: Callable[[Tensor, Tensor], Tensor]) -> None:
    def step(k: Tensor, at: int, x: Tensor, given: Tensor) -> Tensor:
        k[:, at : at + 1] = x
        return read(k[:, : at + 1], given)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, theirs = torch.zeros(2, 8, 4), torch.zeros(2, 8, 4)
    for at in range(5):
        x, given = torch.rand(2, 1, 4), torch.rand(at + 1)
        own = given.clone()
        torch.testing.assert_close(compiled(mine, at, x, own), step(theirs, at, x, given))
        assert torch.equal(own, given) and torch.equal(mine, theirs)
    report = fxpass.reports()[-1]
    assert report.rewritten >= 1 and "given" not in [site.buffer for site in report.sites]
