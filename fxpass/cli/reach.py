"""``kvfix reach``: cases, eager and compiled, one line each; docs/reach.md holds the table.

A module of cases has a list ``CASES``. A case has ``name``, ``where``, ``pattern``, ``stock``, ``ours``, ``graphs``,
``breaks``, ``note`` and ``steps(compiled)``, which decodes with a callable that it has handed to ``compiled`` and yields,
after each call, what came out and the buffers that the call may have changed.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

import fxpass
from fxpass.capture.counting import counting

TOLERANCE = 1e-6


class Case(Protocol):
    """What a module of cases holds."""

    name: str
    where: str
    pattern: str
    stock: str
    ours: bool
    graphs: int
    breaks: int
    note: str
    steps: Callable[[Any], Iterator[tuple[torch.Tensor, list[torch.Tensor]]]]


@dataclasses.dataclass
class Row:
    """One line of the table.

    problems: what is not as it should be; empty where all is well.
    """

    case: Case
    graphs: int = 0
    breaks: int = 0
    rewritten: int = 0
    refused: int = 0
    outputs: float = 0.0
    buffers: float = 0.0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as printed."""
        verdict = "ok" if not self.problems else "; ".join(self.problems)
        both = f"{self.graphs}/{self.breaks}"
        sites = f"{self.rewritten}/{self.refused}"
        return (self.case.name, self.case.where, self.case.pattern, self.case.stock, both, sites,
                f"{self.outputs:.0e}", f"{self.buffers:.0e}", verdict, self.case.note)  # fmt: skip


HEADER = ("case", "where", "pattern", "stock: graphs/breaks", "graphs/breaks", "rewritten/refused", "outputs", "buffers",
          "result", "note")  # fmt: skip


def load(module: str) -> list[Case]:
    """The cases of ``module``, which may lie in the current directory."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return list(importlib.import_module(module).CASES)


@torch.no_grad()
def run(case: Case, compiler: str = "eager") -> Row:
    """Run ``case`` both ways and say what differs from what it expects. A case that fails is a row with a problem."""
    row = Row(case)
    fxpass.reset()
    try:
        expected = list(case.steps(lambda fn: fn))
        with counting() as counts, warnings.catch_warnings():
            warnings.simplefilter("ignore", fxpass.KvfixWarning)
            found = list(case.steps(lambda fn: torch.compile(fn, backend="kvfix", options={"compiler": compiler})))
    except Exception as error:  # a package that is not there, or a model that does not run: a red line, not an end
        row.problems.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:120])
        return row
    row.graphs, row.breaks = counts.graphs, counts.breaks
    reports = fxpass.reports()
    row.rewritten, row.refused = sum(r.rewritten for r in reports), sum(r.refused for r in reports)
    row.outputs = max(_difference(a, b) for (a, _), (b, _) in zip(expected, found))
    row.buffers = max(
        (_difference(a, b) for (_, a_), (_, b_) in zip(expected, found) for a, b in zip(a_, b_)), default=0.0
    )
    row.problems += _problems(row, reports)
    return row


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    wide = torch.complex128 if a.is_complex() else torch.float64
    apart = torch.where(same, 0.0, (a.to(wide) - b.to(wide)).abs() / a.to(wide).abs().clamp(min=1))
    return apart.nan_to_num(nan=float("inf")).max().item()


def _problems(row: Row, reports: list[fxpass.Report]) -> Iterator[str]:
    case = row.case
    if row.graphs > case.graphs:
        yield f"{row.graphs} graphs, {case.graphs} expected"
    if row.breaks > case.breaks:
        yield f"{row.breaks} breaks"
    if row.outputs > TOLERANCE:
        yield "outputs differ"
    if row.buffers > TOLERANCE:
        yield "buffers differ"
    for report in reports:
        if report.unfit:
            yield report.unfit
        if any(not static for name, static, _ in report.parts if name != "prologue"):
            yield f"{report.name} is not static"
    if not case.ours and (row.rewritten or row.refused):
        yield "a control was touched"
    if case.ours and not row.rewritten:
        yield "nothing was rewritten"
    yield from dict.fromkeys(s.reason for r in reports for s in r.sites if s.decision == "refused")


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADER, tuple("---" for _ in HEADER), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(rows: list[Row]) -> None:
    """Print the rows; what is not as it should be in red."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold")
    shown = [i for i, name in enumerate(HEADER) if name not in ("where", "pattern")]
    for i in shown:
        table.add_column(HEADER[i])
    for row in rows:
        table.add_row(*(Text(row.cells[i], style="red" if row.problems else "") for i in shown))
    Console(soft_wrap=True).print(table)
