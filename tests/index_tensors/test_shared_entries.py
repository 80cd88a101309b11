"""What many numbers are computed from is computed once: capture takes time with the length of a program, not with its paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx

from fxpass.analysis import arithmetic
from fxpass.index_tensors.advance import as_function
from fxpass.index_tensors.contents import Arith, Element, in_order, tensors
from fxpass.index_tensors.rules import RULES
from fxpass.torch_internals.dynamo.variables import entry_variables


def maxima(p: Tensor) -> Tensor:
    return torch.maximum(p, p + 1)


def minima(p: Tensor) -> Tensor:
    return torch.minimum(p, p - 1) + 2


def doubled(p: Tensor) -> Tensor:
    return (p + p) % 11


def multiples(p: Tensor) -> Tensor:
    return torch.maximum(p, p * 2) % 13


def joined(p: Tensor) -> Tensor:
    return torch.stack([p.reshape(-1)[0], p.reshape(-1)[0] + 1]).max().reshape(1)


def clamped(p: Tensor) -> Tensor:
    return torch.clamp(p + p, max=40) - p


def in_32_bits(p: Tensor) -> Tensor:
    small = p.to(torch.int32)
    return torch.maximum(small, small + 1).to(torch.int64)


def mixed(p: Tensor) -> Tensor:
    return torch.maximum(p * 3 // 2, p + 1) - torch.minimum(p, p + p) // 2


def squares(p: Tensor) -> Tensor:
    return (p * p + 1) % 7


def cubes(p: Tensor) -> Tensor:
    return p * (p + 1) * p % 5


STEPS: list[Callable[[Tensor], Tensor]] = [
    maxima, minima, doubled, multiples, joined, clamped, in_32_bits, mixed, squares, cubes,
]  # fmt: skip
LENGTH = 12


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.__name__)
def test_each_entry_is_made_once(step: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    bounded: list[object] = []
    stock, fits = entry_variables._made, arithmetic.fits_int64
    monkeypatch.setattr(arithmetic, "fits_int64", lambda number: bounded.append(number) or fits(number))
    monkeypatch.setattr(entry_variables, "_made", lambda tx, entry, known: made.append(entry) or stock(tx, entry, known))

    def program(x: Tensor, idx: Tensor) -> tuple[Tensor, int]:
        p = idx
        for _ in range(LENGTH):
            p = step(p)
        end = p[0].item()
        idx += 1
        return x[: end % 64].sum(), end

    compiled = torch.compile(program, backend="kvfix", options={"compiler": "eager"})
    theirs, ours = torch.tensor([1]), torch.tensor([1])
    for i in range(4):
        assert program(torch.ones(64), theirs) == compiled(torch.ones(64), ours), i
        assert torch.equal(theirs, ours)
    assert len(made) < 40 * LENGTH
    assert len(bounded) < 40 * LENGTH


@pytest.mark.parametrize("step", STEPS[:4], ids=lambda s: s.__name__)
def test_what_is_written_back_is_computed_once(step: Callable[[Tensor], Tensor]) -> None:
    def program(idx: Tensor) -> None:
        for _ in range(LENGTH):
            idx.copy_(step(idx))

    compiled = torch.compile(program, backend="kvfix", options={"compiler": "eager"})
    theirs, ours = torch.tensor([1, 4]), torch.tensor([1, 4])
    for i in range(4):
        program(theirs)
        compiled(ours)
        assert torch.equal(theirs, ours), i


def test_the_code_grows_with_the_entries() -> None:
    idx = fx.Graph().placeholder("idx")
    entry: object = Element(idx, 0)
    for _ in range(500):
        entry = Arith(max, (entry, Arith(int.__add__, (entry, 1))))
    assert len(in_order([entry, entry, 3, None])) == 1001
    assert tensors([entry]) == [idx]
    function = as_function([entry, 7], [idx], {})
    assert len(function._made_of[0]) < 1001 * 40
    assert function([(5,)], ()) == [505, 7]


def test_operands_come_first_and_constants_not_at_all() -> None:
    idx = fx.Graph().placeholder("idx")
    one, other = Element(idx, 0), Element(idx, 1)
    both = RULES["add"](*(RULES["mul"](e, 2) for e in (one, other)))[()]
    assert in_order([both, one, True]) == [one, both.args[0], other, both.args[1], both]
