"""A report as a table."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .memory_sizes import in_words

if TYPE_CHECKING:
    from .model import Report
from .names import user_name
from .symbols import renamed, sources

_STYLE = {"rewritten": "green", "refused": "bold red"}


def table(report: Report) -> Group:
    """The report as a rich renderable: a headline, and a row for each site."""
    head = Text.assemble(
        (f"{report.name}: ", "bold"), f"{report.rewritten} rewritten, {report.refused} refused", *_notes(report)
    )
    if not report.sites:
        return Group(head)
    rows = Table(box=None, pad_edge=False)
    for name in ("kind", "buffer", "dim", "position", "source", "decision"):
        rows.add_column(name, overflow="fold")
    names = report.names | sources(report.symbols)
    for site in report.sites:
        decision = Text(site.decision + (f": {site.reason}" if site.reason else ""), style=_STYLE[site.decision])
        dim = "" if site.dim is None else str(site.dim)
        position = Text(renamed(site.position, names))
        rows.add_row(site.kind, Text(site.buffer), dim, position, Text(_short(site.source)), decision)
    return Group(head, rows)


def wide() -> Console:
    """A console as wide as the terminal; where there is none, wide enough for a report."""
    return Console() if sys.stdout.isatty() else Console(width=160, soft_wrap=True)


def colored(code: str) -> Text:
    """``code`` of a graph, or a diff: comments dim, what was added green, what was taken away red."""
    styles = {"#": "dim", "+": "green", "-": "red", "@": "cyan"}
    lines = [Text(line, style=styles.get(line[:1], "")) for line in code.splitlines()]
    return Text("\n").join(lines)


def render(report: Report, width: int = 160) -> str:
    """The report as plain text."""
    console = Console(width=width, no_color=True, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(table(report))
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def _notes(report: Report) -> list[str]:
    notes = [f"; not rewritten: {report.unfit}"] if report.unfit else []
    notes += [f"; failed: {fault}" for fault in report.faults]
    notes += [f"; {user_name(line)}" for line in report.pinned]
    if report.parts:
        parts = [f"{name} ({count} ops{', static' if static else ''})" for name, static, count in report.parts]
        notes.append("; " + " -> ".join(parts))
    variants = dict.fromkeys(user_name(symbol.of) for symbol in report.symbols if symbol.kind == "variant")
    notes += [f"; one core for each {', '.join(variants)}"] if variants and report.parts else []
    notes += [f"; no variant, it has had too many values: {user_name(name)}" for name in report.corrected]
    notes += [f"; buffer of {in_words(size)}, {kind}, for {name}" for name, kind, size in report.buffers]
    notes += [f"; outside of the core: {user_name(line)}" for line in report.outside]
    notes += [f"; {user_name(line)}" for line in report.beside]
    if report.timings:
        notes.append(f"; {sum(report.timings.values()):.2f} s")
    return notes


def _short(source: str) -> str:
    """The last two components of the path."""
    return os.sep.join(source.split(os.sep)[-2:])
