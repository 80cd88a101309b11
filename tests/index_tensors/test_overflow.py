"""Arithmetic on index tensors that leaves 64 bits: tensors wrap around, Python's ints do not."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass
from fxpass.index_tensors import mirror
from fxpass.index_tensors.arithmetic import apply
from fxpass.index_tensors.formula import evaluate
from fxpass.index_tensors.functions import product, total

PLACES: dict[str, Callable[[Tensor], int]] = {
    "two large factors": lambda i: int((i[0] * 2**40) * 2**40) % 7 + int(i[0]),
    "a large term": lambda i: int((i + 2**63 - 5)[0]) % 7,
    "a comparison": lambda i: 3 if bool((i * 2**62)[0] > 0) else 5,
    "a minus": lambda i: 3 if bool((-(i * 0 - 2**63))[0] < 0) else 5,
    "a product of all": lambda i: int((i * 2**31).prod()) % 11,
    "a seed": lambda i: int(i.mul_(6364136223846793005).add_(1442695040888963407)[0]) % 16,
    "a square": lambda i: int(i.mul_(i).add_(1)[0]) % 16,
    "a square of large ones": lambda i: int(((i + 2**31) * (i + 2**31) * 3)[1]) % 9,
    "a constant": lambda i: int((torch.tensor(2**62) * 4 + i)[0]),
}


def run(place: Callable[[Tensor], int]) -> None:
    def step(k: Tensor, x: Tensor, i: Tensor) -> tuple[Tensor, int]:
        s = place(i)
        k[:, s : s + 1] = x
        i += 1
        return k[:, : s + 1].sum(1), s

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    states = [(torch.zeros(2, 24), torch.tensor([3, 4])) for _ in range(2)]
    for n in range(5):
        x = torch.full((2, 1), 1.0 + n)
        (own, at), (wanted, place_of_eager) = compiled(states[0][0], x, states[0][1]), step(states[1][0], x, states[1][1])
        assert at == place_of_eager and torch.equal(own, wanted), n
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
        assert mirror.known_values(states[0][1]) in (None, tuple(states[0][1].tolist()))


@torch.no_grad()
@pytest.mark.parametrize("name", PLACES)
def test_wraps_as_in_eager(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fxpass.KvfixWarning)
        run(PLACES[name])
    assert not any(report.unfit or report.faults for report in fxpass.reports())


@torch.no_grad()
def test_small_numbers_are_followed_all_the_same() -> None:
    run(lambda i: int((i[0] * 2**31 + i[1] * 2**30) // 2**31) + int(i.prod()) % 3)
    assert fxpass.reports()[-1].rewritten >= 2


@pytest.mark.parametrize(
    "fn, args",
    [(operator.add, (2**63 - 1, 1)), (operator.sub, (-(2**63), 1)), (operator.mul, (2**40, 2**40)), (total, (2**62,) * 3),
     (product, (2**31, 2**31, 8, 3))],
)  # fmt: skip
def test_on_the_host(fn: Callable[..., int], args: tuple[int, ...]) -> None:
    numbers = [torch.tensor(a) for a in args]
    wrapped = fn(*numbers) if len(args) == 2 else getattr(torch.stack(numbers), {total: "sum", product: "prod"}[fn])()
    assert apply(fn, *args) == evaluate(f"{fn.__name__}(*v[0:{len(args)}])", args) == wrapped.item()
