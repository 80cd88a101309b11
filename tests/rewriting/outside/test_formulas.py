"""Numbers of a call are worked out of its arguments by one function, in which what they share stands once."""

from __future__ import annotations

import functools
import operator

import pytest
import torch
from torch import fx

from fxpass.analysis.positions import Origin, Positions
from fxpass.rewriting.buffers import windows
from fxpass.rewriting.outside.formulas import Formula, Size, formula, function_of


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


def doubled(times: int) -> tuple[fx.Node, fx.Node]:
    """The number n and, made of it, ``n + n`` so many times over: as many terms as there are paths."""
    graph = fx.Graph()
    number = given = graph.placeholder("n")
    given.meta["val"] = 3
    for _ in range(times):
        number = graph.call_function(operator.add, (number, number))
        number.meta["val"] = 3
    return number, given


def test_numbers_that_are_made_of_each_other_are_no_formula_and_take_no_time() -> None:
    number, given = doubled(50)
    assert windows._is_known(number, Positions(number.graph, {given: Origin("n")}))
    with pytest.raises(ValueError, match="more than 256 terms"):
        formula(number, [given])
    number, given = doubled(6)
    assert function_of(formula(number, [given]))([3]) == (3 * 2**6,)


def test_a_long_sum_is_a_formula() -> None:
    long = functools.reduce(lambda total, i: Formula(operator.add, (total, i)), range(200), Size(0))
    assert function_of(long)([5]) == (5 + sum(range(200)),)
