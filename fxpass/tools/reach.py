"""``kvfix reach``: cases, eager, with stock `torch.compile` and with kvfix, one line each; docs/reach.md holds the tables.

A module of cases has a list ``CASES``. A case has ``name``, ``where``, ``pattern``, ``ours``, ``graphs``, ``breaks``,
``note`` and ``steps(compiled, device)``, which decodes on ``device`` with a callable that it has handed to ``compiled`` and
yields, after each call, copies of what came out and of the buffers that the call may have changed. The first call is the
prefill. On a GPU, behind Inductor, all further ones should run in one CUDA-graph recording for each graph that they compile to.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

import fxpass
from fxpass.report import figures
from fxpass.tools.counting import counting, graphs, recordings, skips

TOLERANCE = 1e-6


class Case(Protocol):
    """What a module of cases holds."""

    name: str
    where: str
    pattern: str
    ours: bool
    graphs: int
    breaks: int
    note: str
    steps: Callable[[Any, str], Iterator[tuple[torch.Tensor, list[torch.Tensor]]]]


@dataclasses.dataclass
class CaseResult:
    """One line of the table: what was measured, under the case's own words.

    stock_graphs, stock_breaks: those of stock `torch.compile`; None in figures that were recorded without.
    recorded: whether decode steps are to be CUDA graphs: on a GPU, behind Inductor.
    decode_graphs, recordings: what the calls after the first have compiled and recorded.
    skips: CUDA graphs that were skipped, in all calls.
    problems: what is not as it should be; empty where all is well.
    """

    case: str
    where: str = ""
    pattern: str = ""
    note: str = ""
    stock_graphs: int | None = None
    stock_breaks: int | None = None
    recorded: bool = False
    graphs: int = 0
    breaks: int = 0
    rewritten: int = 0
    refused: int = 0
    decode_graphs: int = 0
    recordings: int = 0
    skips: int = 0
    outputs: float = 0.0
    buffers: float = 0.0
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def cells(self) -> dict[str, str]:
        """The row as printed, by column; what was not measured is empty."""
        return {
            "case": self.case,
            "where": self.where,
            "pattern": self.pattern,
            "stock: graphs/breaks": "" if self.stock_graphs is None else f"{self.stock_graphs}/{self.stock_breaks}",
            "graphs/breaks": f"{self.graphs}/{self.breaks}",
            "rewritten/refused": f"{self.rewritten}/{self.refused}",
            "recordings/decode graphs": f"{self.recordings}/{self.decode_graphs}" if self.recorded else "",
            "skips": f"{self.skips}" if self.recorded else "",
            "outputs": f"{self.outputs:.0e}",
            "buffers": f"{self.buffers:.0e}",
            "result": "; ".join(self.problems) or "ok",
            "note": self.note,
        }


def load(module: str) -> list[Case]:
    """The cases of ``module``, which may lie in the current directory."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return list(importlib.import_module(module).CASES)


@torch.no_grad()
def run(case: Case, compiler: str = "eager", device: str = "cpu", verify: int | None = None) -> CaseResult:
    """Run ``case`` in all three ways and say what is not as it should be. A case that fails is a row with a problem.

    ``verify`` is the backend's option; where it is None, the environment says it.
    """
    recorded = compiler == "inductor" and device == "cuda"
    row = CaseResult(case.name, case.where, case.pattern, case.note, recorded=recorded)
    options = {"compiler": compiler, **({} if verify is None else {"verify": verify})}
    made: list[tuple[int, int]] = []

    def compiled(fn: Any) -> Any:
        return _watched(torch.compile(fn, backend="kvfix", options=options), made, recorded)

    fxpass.reset()
    try:
        expected = list(case.steps(lambda fn: fn, device))
        with counting() as stock:
            for _ in case.steps(functools.partial(torch.compile, backend="eager"), device):
                pass
        row.stock_graphs, row.stock_breaks = stock.graphs, stock.breaks
        with counting() as counts, warnings.catch_warnings():
            warnings.simplefilter("ignore", fxpass.KvfixWarning)
            found = list(case.steps(compiled, device))
            row.skips = skips() if recorded else 0
        row.decode_graphs, row.recordings = (last - first for first, last in zip(made[0], made[-1], strict=True))
    except Exception as error:  # a package that is not there, or a model that does not run: a red line, not an end
        row.problems.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:120])
        return row
    row.graphs, row.breaks = counts.graphs, counts.breaks
    reports = fxpass.reports()
    row.rewritten, row.refused = sum(r.rewritten for r in reports), sum(r.refused for r in reports)
    row.outputs = max(_difference(a, b) for (a, _), (b, _) in zip(expected, found, strict=True))
    row.buffers = max(
        (
            _difference(a, b)
            for (_, a_), (_, b_) in zip(expected, found, strict=True)
            for a, b in zip(a_, b_, strict=True)
        ),
        default=0.0,
    )
    row.problems += _problems(case, row, reports)
    return row


def _watched(fn: Any, made: list[tuple[int, int]], recorded: bool) -> Any:
    """``fn``; after each call, ``made`` has one more pair: the graphs compiled and the CUDA graphs recorded so far."""

    def call(*args: Any, **kwargs: Any) -> Any:
        out = fn(*args, **kwargs)
        made.append((graphs(), recordings() if recorded else 0))
        return out

    return call


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    wide = torch.complex128 if a.is_complex() else torch.float64
    apart = torch.where(same, 0.0, (a.to(wide) - b.to(wide)).abs() / a.to(wide).abs().clamp(min=1))
    return apart.nan_to_num(nan=float("inf")).max().item()


def _problems(case: Case, row: CaseResult, reports: list[fxpass.Report]) -> Iterator[str]:
    if row.graphs > case.graphs:
        yield f"{row.graphs} graphs, {case.graphs} expected"
    if row.breaks > case.breaks:
        yield f"{row.breaks} breaks"
    if row.outputs > TOLERANCE:
        yield "outputs differ"
    if row.buffers > TOLERANCE:
        yield "buffers differ"
    if row.recordings > row.decode_graphs:
        yield f"{row.recordings} recordings of {row.decode_graphs} decode graphs"
    if row.skips:
        yield f"{row.skips} CUDA graphs skipped"
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


def table(rows: list[CaseResult]) -> list[list[str]]:
    """The header and the cells of ``rows``, without the columns that are empty in all of them."""
    cells = [row.cells for row in rows]
    filled = [name for name in cells[0] if any(c[name] for c in cells)]
    return [filled, *([c[name] for name in filled] for c in cells)]


def markdown(rows: list[CaseResult]) -> str:
    """The rows as a Markdown table."""
    header, *lines = table(rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))


def show(rows: list[CaseResult]) -> None:
    """Print the rows; what is not as it should be in red."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    header, *lines = table([dataclasses.replace(row, where="", pattern="") for row in rows])
    shown = Table(*header, box=None, header_style="bold")
    for row, line in zip(rows, lines, strict=True):
        shown.add_row(*(Text(cell, style="red" if row.problems else "") for cell in line))
    Console(soft_wrap=True).print(shown)


def write(path: Path, rows: list[CaseResult]) -> None:
    """The rows, under what they were measured on, as a JSON file."""
    figures.write(path, {"command": figures.command(sys.argv[1:]), "rows": [vars(row) for row in rows]})


def read(path: Path) -> list[CaseResult]:
    """The rows that `write` has left at ``path``.

    Raises:
        OSError, ValueError, KeyError, TypeError: there is no such file.
    """
    return [CaseResult(**row) for row in json.loads(path.read_text())["rows"]]
