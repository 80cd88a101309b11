"""The comparison: rows, errors in rows, and the table."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fxpass.tools.compare import ComparisonRow, TimedStep, comparison_table, headline, measure, notes


def test_measure():
    reference = [torch.zeros(2), torch.zeros(3)]

    def run() -> Iterator[TimedStep]:
        f = torch.compile(lambda x: x + 0.5, backend="eager", dynamic=False)
        yield TimedStep(f(reference[0]), 9.0, False)
        yield TimedStep(f(reference[1]) * torch.tensor([0.0, 0.0, 3.0]), 0.002, True)

    row = measure("mine", run, reference, compiled=True, gpu=False)
    assert (row.mae, row.max_diff) == (0.5, 1.5)
    assert (row.graphs, row.breaks, row.recompiles, row.skips, row.error) == (2, 0, 1, None, "")
    assert row.ms == 2.0


def test_a_failing_approach_is_a_row():
    def run() -> Iterator[TimedStep]:
        raise IndexError("\n  got SymInt\nand more")
        yield

    row = measure("mine", run, [torch.zeros(2)], compiled=True, gpu=True)
    assert (row.error, row.graphs, row.skips) == ("IndexError: got SymInt", 0, [])
    assert "mine  IndexError: got SymInt" in comparison_table([row])


def test_a_run_that_is_too_short_is_an_error():
    row = measure("mine", lambda: [], [torch.zeros(2)], compiled=False, gpu=False)
    assert row.error == "RuntimeError: 0 steps where eager made 1" and row.graphs is None


def test_table():
    rows = [
        ComparisonRow("eager", 0.0, 0.0, ms=1.5),
        ComparisonRow("stock upstream", 1.25e-7, 9.5e-7, 34, 25, 17, ["a", "a", "b"], 20.126),
    ]
    assert comparison_table(rows).splitlines() == [
        "approach           MAE max diff graphs breaks recompiles skips ms/step",
        "eager                0        0      -      -          -   n/a    1.50",
        "stock upstream 1.2e-07  9.5e-07     34     25         17     3   20.13",
    ]
    assert notes(rows) == ["stock upstream: 2 x a", "stock upstream: 1 x b"]


def test_headline_without_message():
    assert headline(KeyError()) == "KeyError"
