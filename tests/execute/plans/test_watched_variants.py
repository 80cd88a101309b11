"""A number that was taken for a variant and has too many values is left symbolic: the graph is cut again, once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fxpass.execute.plans.watched_variants import MAX_NEW, WatchedVariants


def correcting(most: int = 100) -> tuple[WatchedVariants, list[list[int]]]:
    again: list[list[int]] = []

    def cut(places: list[int]) -> Callable[..., str]:
        again.append(places)
        return lambda *args: "cut again"

    return WatchedVariants(lambda *args: "cores", [0, 2], cut, most, pytest.fail), again


def test_a_variant_that_moves_is_corrected_once() -> None:
    run, again = correcting()
    assert [run(3, None, n) for n in (1, 1, 2, 2, 3)] == ["cores"] * 5
    outcomes = [run(3, None, n) for n in range(4, 4 + MAX_NEW)]
    assert outcomes[-1] == "cut again" and again == [[2]]
    assert run(4, None, 99) == "cut again" and again == [[2]]


def test_values_that_take_turns_are_a_few_cores() -> None:
    run, again = correcting()
    assert {run(3, None, n % 3) for n in range(30)} == {"cores"} and not again


def test_the_number_with_most_values_is_corrected_where_there_are_many() -> None:
    run, again = correcting(most=6)
    assert {run(n // 8, None, n // 2) for n in range(12)} == {"cores"} and not again
    assert run(1, None, 6) == "cut again" and again == [[2]]
