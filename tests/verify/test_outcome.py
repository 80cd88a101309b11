"""What counts as a difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fxpass.verify.outcome import Outcome, difference


def said(found: Sequence[Any], expected: Sequence[Any], exact: bool = False) -> str:
    return difference(Outcome(found, None, ()), Outcome(expected, None, ()), (exact, ()), ())


ONE = torch.tensor([1.0, 2.0, 3.0])
ALIKE = {
    "nan": (torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0])),
    "infinite": (torch.tensor([float("inf"), -float("inf")]), torch.tensor([float("inf"), -float("inf")])),
    "rounding": (ONE * (1 + 1e-6), ONE),
    "what is left of large numbers": (torch.tensor([1000.0, 1e-4]), torch.tensor([1000.0, 0.0])),
    "bfloat16": (torch.tensor([1.0, 0.003]).bfloat16(), torch.tensor([1.0, 0.0]).bfloat16()),
    "float8": (torch.tensor([1.125]).to(torch.float8_e4m3fn), torch.tensor([1.0]).to(torch.float8_e4m3fn)),
    "complex": (torch.tensor([1 + 1e-7j]), torch.tensor([1 + 0j])),
    "half of complex": (torch.tensor([1 + 1j]).to(torch.complex32), torch.tensor([1 + 1j]).to(torch.complex32)),
    "empty": (torch.zeros(0, 2), torch.zeros(0, 2)),
    "numbers": (float("nan"), float("nan")),
    "sparse": (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
    "unsigned": (torch.tensor([1, 2], dtype=torch.uint32), torch.tensor([1, 2], dtype=torch.uint32)),
}
APART = {
    "a value": (ONE * torch.tensor([1.0, 1.0, 1.001]), ONE, r"at \[2\]: 3.00\d+ with kvfix, 3.0 without \(1 of 3"),
    "nan": (torch.tensor([float("nan")]), torch.tensor([1.0]), "nan with kvfix, 1.0 without"),
    "infinite": (torch.tensor([1.0]), torch.tensor([float("inf")]), "1.0 with kvfix, inf without"),
    "integer": (torch.tensor([10**6]), torch.tensor([10**6 + 1]), "1000000 with kvfix, 1000001 without"),
    "bool": (torch.tensor([True]), torch.tensor([False]), "True with kvfix, False without"),
    "float8": (torch.tensor([2.0]).to(torch.float8_e4m3fn), torch.tensor([1.0]).to(torch.float8_e4m3fn), "2.0 .* 1.0"),
    "complex": (torch.tensor([1 + 1j]), torch.tensor([1 - 1j]), "1j"),
    "shape": (ONE, ONE[None], r"float32\[3\].*float32\[1, 3\]"),
    "dtype": (ONE, ONE.double(), "float32.*float64"),
    "kind": (torch.nn.Parameter(ONE), ONE, "Parameter of"),
    "number": (3, 4, "3 with kvfix, 4 without"),
    "none": (None, ONE, "None with kvfix"),
}


@pytest.mark.parametrize("found, expected", ALIKE.values(), ids=list(ALIKE))
def test_alike(found: Any, expected: Any) -> None:
    assert said([found], [expected]) == ""


@pytest.mark.parametrize("found, expected, words", APART.values(), ids=list(APART))
def test_apart(found: Any, expected: Any, words: str) -> None:
    import re

    assert re.search(words, said([3, found], [3, expected])) and "result 1" in said([3, found], [3, expected])


def test_a_bit() -> None:
    near = torch.nextafter(ONE, ONE + 1)
    assert said([near], [ONE]) == "" and "bitwise" in said([near], [ONE], exact=True)


def test_one_fails() -> None:
    fails, runs = Outcome((), ValueError("no"), ()), Outcome((), None, ())
    assert "raises ValueError: ['no'] with kvfix, it runs without" in difference(fails, runs, (False, ()), ())
    assert "it runs with kvfix, it raises ValueError" in difference(runs, fails, (False, ()), ())
    assert difference(fails, fails, (False, ()), ()) == ""


def test_another_number_of_results() -> None:
    assert "2 with kvfix, 1 without" in said([ONE, ONE], [ONE])


def test_memory() -> None:
    """A view of an input is one in both; what is apart stays so."""

    def outcome(result: Tensor, held: Tensor) -> Outcome:
        return Outcome([result], None, [held])

    mine, theirs = torch.zeros(4), torch.zeros(4)
    assert difference(outcome(mine[:2], mine), outcome(theirs[:2], theirs), (False, [True]), ["x"]) == ""
    assert "shares memory: with no input" in difference(
        outcome(mine[:2].clone(), mine), outcome(theirs[:2], theirs), (False, [True]), ["x"]
    )
    assert "with input 0 with kvfix, with no input without" in difference(
        outcome(mine[:2], mine), outcome(theirs[:2].clone(), theirs), (False, [True]), ["x"]
    )
    assert "results 0 and 1: are in one memory" in said([mine, mine.view(2, 2)], [theirs, theirs.clone().view(2, 2)])


def test_memory_that_runs_out_is_no_outcome() -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        Outcome.of(full, ())
