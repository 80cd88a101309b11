"""Many forecasts on a GPU: memory is flat, recordings are bounded, what is dropped is let go. ``python -m tests.lifetime
--device cuda --compiler inductor`` runs the same, and writes down what it finds."""

from __future__ import annotations

import pytest
from lifetime import runs
from lifetime.__main__ import bounded, flat, gone

pytestmark = pytest.mark.gpu


def test_five_hundred_forecasts_leave_nothing_behind() -> None:
    left = runs.in_a_row(500, "cuda", "inductor")
    flat(left)
    assert left[-1].recordings == left[0].recordings > 0, left


def test_a_thousand_random_forecasts_with_eager_calls_in_between() -> None:
    left = runs.at_random(1000, "cuda", "inductor")
    bounded(left)
    assert left[-1].recordings > 0, left


def test_what_is_dropped_is_let_go() -> None:
    gone(runs.dropped("cuda", "inductor"))
