"""Numbers made from positions: their twins are exact, or the site is refused and says by what."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpass

CAPACITY = 32

EXACT: dict[str, Callable[[int], Any]] = {
    "ceil": lambda p: math.ceil((p + 1) / 4) * 4,
    "floor": lambda p: math.floor((p + 1) / 2) + 1,
    "trunc": lambda p: math.trunc((p - 20) / 3) + 10,
    "int": lambda p: int(p / 2) + 1,
    "round": lambda p: round(p / 2) + 1,
    "floordiv": lambda p: -(-p // 4) + 1,
    "mod": lambda p: (p - 9) % 5 + 1,
    "pow": lambda p: p**2 // 8 + 1,
    "abs": lambda p: abs(p - 20) + 1,
    "sqrt": lambda p: int(math.sqrt(p)) + 1,
    "fraction": lambda p: int(p * 0.3) + 1,
    "float": lambda p: int(float(p) - 0.5) + 1,
    "max": lambda p: max(p, 6),
    "min of rounded": lambda p: min(8, math.ceil((p + 1) / 4) * 4),
    "hash": lambda p: (p * 2654435761 + 12345) % 2**32 * 40503 % 2**32 % 16 + 1,
    "max of fractions": lambda p: math.ceil(max(p / 3, 2.5)),
}
REFUSED: dict[str, tuple[Callable[[int], Any], str]] = {
    "log2": (lambda p: int(math.log2(p + 1)) + 1, "log2"),
    "power with a fraction": (lambda p: int(p**0.5) + 1, "pow"),
    "large power": (lambda p: p**7 % 13 + 1, "64 bits"),
    "large factors": (lambda p: (p * 2**40) * 2**40 // 2**79, "64 bits"),
    "large factor": (lambda p: (p * 2**61) // 2**60 % 16 + 1, "64 bits"),
}


def run(step: Callable[..., Tensor], compiler: str = "eager") -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    mine, eager = torch.zeros(2, 2, CAPACITY)
    for p in range(3, 12):
        x = torch.randn(2, 1)
        torch.testing.assert_close(compiled(mine, x, p), step(eager, x, p))
        assert torch.equal(mine, eager)
    assert not any(report.unfit for report in fxpass.reports())


def read(number: Callable[[int], Any]) -> Callable[..., Tensor]:
    def step(c: Tensor, x: Tensor, p: int) -> Tensor:
        c[:, p : p + 1] = x
        return c[:, : number(p)].sum(1)

    return step


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", list(EXACT))
def test_exact(name: str, compiler: str) -> None:
    run(read(EXACT[name]), compiler)
    assert fxpass.reports()[-1].refused == 0 and fxpass.reports()[-1].rewritten >= 2


@torch.no_grad()
@pytest.mark.parametrize("name", ["ceil", "fraction", "sqrt", "mod"])
def test_a_row_at_such_a_place(name: str) -> None:
    def step(c: Tensor, x: Tensor, p: int) -> Tensor:
        c[:, EXACT[name](p)] = x[:, 0]
        return c[:, EXACT[name](p) - 1] * 2

    run(step)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_by_name(name: str) -> None:
    number, reason = REFUSED[name]
    run(read(number))
    reasons = [s.reason for s in fxpass.reports()[-1].sites if s.reason]
    assert reasons and all(reason in r and "no tensor twin" in r for r in reasons), reasons


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.int32])
def test_fractions_in_arithmetic(dtype: torch.dtype) -> None:
    """A Python float is of no dtype beside a tensor of floats, and of the default one beside integers."""

    def step(c: Tensor, x: Tensor, p: int) -> Tensor:
        c[:, p : p + 1] = x
        some, one = torch.arange(4).to(dtype), torch.tensor(3, dtype=dtype)
        return torch.cat([(some * (p / 7) - p / 3).flatten(), (one * (p / 7)).flatten()]) + c[:, : p + 1].sum() * 0

    run(step)


class Ring:
    """A cache with its capacity beside it, and the number of rows that have come in."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.k, self.n = capacity, torch.zeros(2, capacity, 4), 0


def round_the_ring(c: Ring, x: torch.Tensor) -> torch.Tensor:
    at = c.n % c.capacity
    c.k[:, at : at + 1] = x
    c.n += 1
    return c.k[:, : min(c.n, c.capacity)].sum(1)


def in_blocks(c: Ring, x: torch.Tensor) -> torch.Tensor:
    block = c.capacity // 4
    c.k.unflatten(1, (4, block))[:, c.n // block, c.n % block] = x[:, 0]
    c.n += 1
    return c.k[:, : c.n].sum(1)


def row_by_row(c: Ring, x: torch.Tensor) -> torch.Tensor:
    at = c.n % c.capacity
    c.k[0, at : at + 1], c.k[1, at] = x[0], x[1, 0]
    c.n += 1
    return c.k.sum(1)


@torch.no_grad()
@pytest.mark.parametrize("step", [round_the_ring, in_blocks, row_by_row])
def test_what_is_left_of_a_division_by_a_number_that_moves(step: Any) -> None:
    """``n % capacity`` is no larger than the capacity, which is a symbol once a cache of another size has come."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    for capacity in (12, 20, 28):
        mine, eager = Ring(capacity), Ring(capacity)
        for _ in range(capacity if step is in_blocks else capacity + 3):
            x = torch.rand(2, 1, 4)
            torch.testing.assert_close(compiled(mine, x), step(eager, x))
            assert torch.equal(mine.k, eager.k)
    assert fxpass.reports()[-1].rewritten and not any(report.refused for report in fxpass.reports())
