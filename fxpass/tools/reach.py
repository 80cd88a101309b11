"""``kvfix reach``: cases, eager, with stock `torch.compile` and with kvfix; docs/reach.md holds the tables.

A module of cases has a list ``CASES``. A case has ``name``, ``where``, ``pattern``, ``ours``, ``graphs``, ``breaks``,
``note`` and ``steps(compiled, device)``, which decodes on ``device`` with what it has handed to ``compiled`` (as to
`torch.compile`, with options such as ``dynamic``) and yields, after each step, copies of what came out and of the buffers
that the step may have changed. The first step is the prefill; ``blocks``, 1 if the case has none, says how many calls of what
was compiled a step makes. On a GPU, behind Inductor, all further ones should run in one CUDA-graph recording for each graph
that they compile to and each block. What comes of a case is a row (`reach_rows`).
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

import fxpass
from fxpass.tools.counting import counting, skips
from fxpass.tools.reach_rows import CaseResult
from fxpass.tools.watched_calls import Watched

TOLERANCE = 1e-6
_Seen = tuple[torch.Tensor, list[torch.Tensor]]
"""What a step gives, and the buffers after it."""


class Case(Protocol):
    """What a module of cases holds."""

    name: str
    where: str
    pattern: str
    ours: bool
    graphs: int
    breaks: int
    note: str
    steps: Callable[[Any, str], Iterator[_Seen]]


def load_cases(module: str) -> list[Case]:
    """The cases of ``module``, which may lie in the current directory."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return list(importlib.import_module(module).CASES)


@torch.no_grad()
def run(
    case: Case, compiler: str = "eager", device: str = "cpu", verify: int | None = None, launched_by_stock: bool = True
) -> CaseResult:
    """Run ``case`` in all three ways and say what is not as it should be. A case that fails is a row with a problem.

    ``verify`` is the backend's option; where it is None, the environment says it. ``launched_by_stock`` asks what stock's CUDA
    graphs launch, where kvfix's are recorded: stock may record one for each step, which can take many minutes.
    """
    recorded = compiler == "inductor" and device == "cuda"
    row = CaseResult(case.name, case.where, case.pattern, case.note, recorded=recorded)
    options = {"compiler": compiler, **({} if verify is None else {"verify": verify})}
    watched = Watched(recorded)

    def compiled(fn: Any, **how: Any) -> Any:
        return watched.of(torch.compile(fn, backend="kvfix", options=options, **how))

    fxpass.reset()
    try:
        expected = list(case.steps(lambda fn, **how: fn, device))
        with counting() as counted:
            for _ in case.steps(functools.partial(torch.compile, backend="eager"), device):
                pass
        row.stock_graphs, row.stock_breaks = counted.graphs, counted.breaks
        row.stock_launches = _stock_launches(case, device) if recorded and launched_by_stock else None
        with counting() as counts, warnings.catch_warnings():
            warnings.simplefilter("ignore", fxpass.KvfixWarning)
            found = list(case.steps(compiled, device))
            row.skips = skips() if recorded else 0
        first = watched.made[getattr(case, "blocks", 1) - 1]
        row.decode_graphs, row.recordings, _ = (b - a for a, b in zip(first, watched.made[-1], strict=True))
        row.launches = watched.launches
    except Exception as error:  # a package that is not there, or a model that does not run: a red line, not an end
        row.problems.append(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[:120])
        return row
    row.graphs, row.breaks = counts.graphs, counts.breaks
    _add_reports(row, fxpass.reports(), first[2])
    _add_differences(row, expected, found)
    row.problems += _problems(case, row, fxpass.reports())
    return row


def _add_reports(row: CaseResult, reports: list[fxpass.Report], first: int) -> None:
    """Put into ``row`` what ``reports`` say. Those from the ``first`` on were made after the first step."""
    row.rewritten, row.refused = sum(r.rewritten for r in reports), sum(r.refused for r in reports)
    steps = _of_steps(reports[first:]) or reports
    row.kinds = list(dict.fromkeys((symbol.of, symbol.kind) for report in steps for symbol in report.symbols))
    row.core = "; ".join(dict.fromkeys(filter(None, map(_left_out, steps)))) or "one"


def _add_differences(row: CaseResult, expected: list[_Seen], found: list[_Seen]) -> None:
    """Put into ``row`` how far the steps ``found`` are from those ``expected``."""
    pairs = list(zip(expected, found, strict=True))
    row.outputs = max(_difference(a, b) for (a, _), (b, _) in pairs)
    buffers = [pair for (_, before), (_, after) in pairs for pair in zip(before, after, strict=True)]
    row.buffers = max((_difference(a, b) for a, b in buffers), default=0.0)


def _stock_launches(case: Case, device: str) -> tuple[int, int] | None:
    """What the last call launches with stock's CUDA graphs; None where stock fails."""
    watched = Watched(recorded=True)
    try:
        with counting():
            for _ in case.steps(lambda fn, **how: watched.of(torch.compile(fn, mode="reduce-overhead", **how)), device):
                pass
    except Exception:  # what stock cannot run is no fault of the case: its column stays empty
        return None
    return watched.launches


def _of_steps(reports: list[fxpass.Report]) -> list[fxpass.Report]:
    """The ``reports`` of decode steps. Of a frame that has graphs with positions, these alone are steps: the others are
    prefills of another batch or length."""
    at_positions = [report for report in reports if any(symbol.kind == "position" for symbol in report.symbols)]
    frames = {_frame(report) for report in at_positions}
    return [report for report in reports if report in at_positions or _frame(report) not in frames]


def _frame(report: fxpass.Report) -> str:
    return report.compile_id.partition("/")[0]


def _left_out(report: fxpass.Report) -> str:
    """What a graph does outside of one static part; nothing where all is in one, or the graph has no symbols at all."""
    if report.outside:
        first, *more = report.outside
        return f"outside: {first}" + (f", and {len(more)} more" if more else "")
    static = [name for name, static, _ in report.parts if static]
    if len(static) == 1 or not report.parts and not report.symbols:
        return ""
    return f"none: {report.unfit or 'runs as it came, with ' + ', '.join(symbol.of for symbol in report.symbols)}"


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
    if row.recordings > row.decode_graphs * getattr(case, "blocks", 1):
        yield f"{row.recordings} recordings of {row.decode_graphs} decode graphs"
    if row.skips:
        yield f"{row.skips} CUDA graphs skipped"
    if row.recorded and row.launches is not None and not row.launches[0]:
        yield "the last step is no CUDA graph"
    if row.core != "one":
        yield row.core
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
