"""Numbers of a call are worked out of its arguments by one function, in which what they share stands once."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx

from fxpass.graph.numbers import Derived
from fxpass.rewriting.formulas import Formula, Size, formula, function_of


class Counted:
    """A tensor's sizes, which counts how often it is asked."""

    def __init__(self, *sizes: int) -> None:
        self.sizes, self.asked = sizes, 0

    def size(self, dim: int) -> int:
        self.asked += 1
        return self.sizes[dim]


def test_sizes_inputs_and_formulas_of_them() -> None:
    steps = Formula(operator.floordiv, (Size(0, 1), 8))
    rounded = Formula(operator.mul, (8, steps))
    given = (torch.zeros(2, 27), 5)
    assert function_of()(given) == ()
    assert function_of(Size(1), (rounded, Size(0, -1)), ())(given) == (5, (24, 27), ())
    assert function_of((steps,), rounded, steps, 3)(given) == ((3,), 24, 3, 3)


def test_what_is_shared_is_asked_for_once() -> None:
    size = Size(0, 0)
    twice, x = Formula(operator.mul, (size, 2)), Counted(7)
    assert function_of(Formula(operator.sub, (twice, size)), twice, size)([x]) == (7, 14, 7)
    assert x.asked == 1


def test_constants_that_are_equal_stay_what_they_are() -> None:
    kinds = function_of(*(Formula(lambda n: type(n), (one,)) for one in (1, True, 1.0)))([])
    assert kinds == (int, bool, float)


def test_a_formula_that_is_long_when_written_out_is_not_made() -> None:
    end = fx.Graph().placeholder("end")
    value: fx.Node | Derived = end
    for _ in range(3):
        value = Derived(operator.add, (value, value), 2, end)
    assert function_of(formula(value, [end]))([1]) == (8,)
    for _ in range(60):
        value = Derived(operator.add, (value, value), 2, end)
    with pytest.raises(ValueError, match="too long"):
        formula(value, [end])
