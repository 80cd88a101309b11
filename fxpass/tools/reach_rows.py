"""The rows of ``kvfix reach``: what was measured of each case, as a table in the terminal, as Markdown, and as a JSON file."""

from __future__ import annotations

import collections
import dataclasses
import json
import sys
from pathlib import Path

from fxpass.tools import figures


@dataclasses.dataclass
class CaseResult:
    """One line of the table: what was measured, under the case's own words.

    stock_graphs, stock_breaks: those of stock `torch.compile`; None in figures that were recorded without.
    recorded: whether decode steps are to be CUDA graphs: on a GPU, behind Inductor.
    decode_graphs, recordings: what the steps after the first have compiled and recorded.
    skips: CUDA graphs that were skipped, in all calls.
    kinds: the symbols of the graphs of these steps: what they are of, and which kind.
    core: "one" where each of these graphs does all its products and attention in one static part, else what is outside and why.
    launches, stock_launches: CUDA graphs and single kernels that the last call launches, with kvfix and with stock
        ``mode="reduce-overhead"``; None where that was not measured, or stock fails.
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
    kinds: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    core: str = ""
    launches: tuple[int, int] | None = None
    stock_launches: tuple[int, int] | None = None
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
            "stock: launches": _launches(self.stock_launches),
            "launches": _launches(self.launches),
            "kinds": _kinds(self.kinds),
            "core": self.core,
            "outputs": f"{self.outputs:.0e}",
            "buffers": f"{self.buffers:.0e}",
            "result": "; ".join(self.problems) or "ok",
            "note": self.note,
        }


def cells_of(rows: list[CaseResult]) -> list[list[str]]:
    """The header and the cells of ``rows``, without the columns that are empty in all of them."""
    cells = [row.cells for row in rows]
    filled = [name for name in cells[0] if any(c[name] for c in cells)]
    return [filled, *([c[name] for name in filled] for c in cells)]


def markdown(rows: list[CaseResult]) -> str:
    """The rows as a Markdown table."""
    header, *lines = cells_of(rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))


def show(rows: list[CaseResult]) -> None:
    """Print the rows; what is not as it should be in red."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    header, *lines = cells_of([dataclasses.replace(row, where="", pattern="") for row in rows])
    shown = Table(*header, box=None, header_style="bold")
    for row, line in zip(rows, lines, strict=True):
        shown.add_row(*(Text(cell, style="red" if row.problems else "") for cell in line))
    Console(soft_wrap=True).print(shown)


def save_rows(path: Path, rows: list[CaseResult], others: list[CaseResult] | None = None) -> None:
    """Write the rows, with what they were measured on, to a JSON file. Of ``others``, recorded before, those of other cases are
    kept."""
    new = {row.case for row in rows}
    kept = [row for row in others or [] if row.case not in new]
    figures.write_figures(path, {"command": figures.command(sys.argv[1:]), "rows": [vars(row) for row in [*kept, *rows]]})


def read_rows(path: Path) -> list[CaseResult]:
    """The rows that `save_rows` has left at ``path``.

    Raises:
        OSError, ValueError, KeyError, TypeError: there is no such file.
    """
    return [CaseResult(**row) for row in json.loads(path.read_text())["rows"]]


def _launches(counts: tuple[int, int] | None) -> str:
    return "" if counts is None else f"{counts[0]} + {counts[1]}"


def _kinds(kinds: list[tuple[str, str]]) -> str:
    """How many there are of each kind, with the names of those that move."""
    counts = collections.Counter(kind for _, kind in kinds)
    return ", ".join(f"{counts[kind]} {kind}{'s' if counts[kind] > 1 else ''}" for kind in sorted(counts))
