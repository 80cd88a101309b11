"""A table of approaches: the same steps run in several ways, each compared with eager."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from fxpass.report import store
from fxpass.tools.counting import counting


class TimedStep(NamedTuple):
    """One call of the model: what it returned, how long it took, and whether its time belongs in the table."""

    output: torch.Tensor
    seconds: float
    timed: bool


@dataclasses.dataclass
class ComparisonRow:
    """One approach. Differences are over the outputs of all steps; ``ms`` is the median of the timed ones.

    skips: messages of skipped CUDA graphs; None where there are none to skip (no GPU, or nothing compiled).
    error: type and first line of the exception that ended the run; what was counted before it is kept.
    seconds: the whole run, compilation included.
    """

    approach: str
    mae: float | None = None
    max_diff: float | None = None
    graphs: int | None = None
    breaks: int | None = None
    recompiles: int | None = None
    skips: list[str] | None = None
    ms: float | None = None
    error: str = ""
    seconds: float = 0.0


def measure(
    approach: str, run: Callable[[], Iterable[TimedStep]], reference: Sequence[torch.Tensor], compiled: bool, gpu: bool
) -> ComparisonRow:
    """Run the steps of ``run()`` in a fresh state of Dynamo and of kvfix, and compare them with ``reference``.

    An exception becomes the row's ``error``. With ``compiled`` unset (eager) nothing is counted.
    """
    row = ComparisonRow(approach)
    store.reset()
    start = time.perf_counter()
    with counting() as counts:
        try:
            steps = list(run())
            _compare(row, steps, reference)
        except Exception as error:  # shown in the row
            row.error = headline(error)
    row.seconds = time.perf_counter() - start
    if compiled:
        row.graphs, row.breaks, row.recompiles = counts.graphs, counts.breaks, counts.recompiles
        row.skips = counts.skips if gpu else None
    return row


def _compare(row: ComparisonRow, steps: Sequence[TimedStep], reference: Sequence[torch.Tensor]) -> None:
    if len(steps) != len(reference):
        raise RuntimeError(f"{len(steps)} steps where eager made {len(reference)}")
    differences = [(s.output.double() - r.double()).abs().flatten() for s, r in zip(steps, reference, strict=True)]
    together = torch.cat(differences)
    row.mae, row.max_diff = together.mean().item(), together.max().item()
    row.ms = 1e3 * statistics.median(s.seconds for s in steps if s.timed)


def headline(error: BaseException) -> str:
    """Type and first line of an exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """The rows as text, 80 columns wide; a row that failed shows its error in place of numbers."""
    names = ("approach", "MAE", "max diff", "graphs", "breaks", "recompiles", "skips", "ms/step")
    width = max(len(row.approach) for row in rows)
    lines = [_line(names, width)]
    for row in rows:
        if row.error:
            lines.append(f"{row.approach:<{width}}  {row.error}")
            continue
        counted = [_count(n) for n in (row.graphs, row.breaks, row.recompiles)]
        ms = "-" if row.ms is None else f"{row.ms:.2f}"
        cells = (row.approach, _small(row.mae), _small(row.max_diff), *counted, _skips(row.skips), ms)
        lines.append(_line(cells, width))
    return "\n".join(lines)


def _line(cells: Sequence[str], width: int) -> str:
    return f"{cells[0]:<{width}}" + "".join(f"{c:>{w}}" for c, w in zip(cells[1:], (8, 9, 7, 7, 11, 6, 8), strict=True))


def notes(rows: Sequence[ComparisonRow]) -> list[str]:
    """A line for each reason why CUDA graphs were skipped."""
    lines = []
    for row in rows:
        for reason in dict.fromkeys(row.skips or ()):
            lines.append(f"{row.approach}: {(row.skips or []).count(reason)} x {reason}")
    return lines


def _small(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)


def _skips(skips: list[str] | None) -> str:
    return "n/a" if skips is None else str(len(skips))
