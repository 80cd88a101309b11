"""The tables of docs/reach.md are what the commands print, for all cases that there are."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest

from fxpass.tools import reach, reach_rows

from . import cases, minimal, totos

ROOT = pathlib.Path(__file__).parents[2]
TABLES = re.findall(r"(?:^\|.*\n)+", (ROOT / "docs/reach.md").read_text(), re.MULTILINE)
MEASURED = ("IntArgument", "Bounds", "ModuleAttribute", "Ring", "StaticControl")


def rows(table: str) -> list[dict[str, str]]:
    """The cells of each row of a Markdown table, by column."""
    header, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.mark.parametrize("table, module", [*zip(TABLES, (cases, minimal), strict=False)], ids=("packages", "minimal"))
def test_every_case_is_a_row(table: str, module: Any) -> None:
    assert [row["case"] for row in rows(table)] == [case.name for case in module.CASES]


def test_what_is_recorded_are_cases() -> None:
    """They are recorded one by one; what is new may have no row yet."""
    assert {row["case"] for row in rows(TABLES[2])} <= {case.name for case in cases.CASES}


@pytest.mark.parametrize("name", MEASURED)
def test_counts_are_those_measured(name: str) -> None:
    """Stock's, whether it breaks, recompiles or stays whole, and kvfix's."""
    row = reach.run(next(case for case in minimal.CASES if case.name == name))
    shown = next(row for row in rows(TABLES[1]) if row["case"] == name)
    counts = ("stock: graphs/breaks", "graphs/breaks", "rewritten/refused", "result")
    assert {column: shown[column] for column in counts} == {column: row.cells[column] for column in counts}


def test_the_recorded_table_is_what_the_file_holds() -> None:
    recorded = reach_rows.read_rows(ROOT / "benchmarks/results/reach.json")
    assert TABLES[2] == reach_rows.markdown(recorded) + "\n"


@pytest.mark.parametrize("table, module", [(TABLES[0], cases), (TABLES[3], totos)], ids=("packages", "toto-ts"))
def test_what_was_recorded_on_a_cpu_is_well(table: str, module: Any) -> None:
    names = [case.name for case in module.CASES]
    recorded = [row for row in reach_rows.read_rows(ROOT / "benchmarks/results/reach_cpu.json") if row.case in names]
    assert table == reach_rows.markdown(recorded) + "\n"
    assert all(not row.problems and row.core == "one" for row in recorded)
