"""A report as a table, and its code in colors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .names import shortened
from .site import Site
from .symbols import renamed

STYLE = {"rewritten": "green", "refused": "bold red"}
WIDTH = 160
"""Where there is no terminal, a line has so many characters."""


def table(name: str, said: Sequence[str], sites: Sequence[Site], names: Mapping[str, str]) -> Group:
    """The report called ``name`` as a rich renderable: a headline of what is ``said``, and a row for each of ``sites``. Symbols
    are called by their ``names``."""
    head = Text.assemble((f"{name}: ", "bold"), "; ".join(said))
    if not sites:
        return Group(head)
    rows = Table(box=None, pad_edge=False)
    for column in ("kind", "buffer", "dim", "position", "source", "decision"):
        rows.add_column(column, overflow="fold")
    for site in sites:
        decision = Text(site.decision + (f": {site.reason}" if site.reason else ""), style=STYLE[site.decision])
        dim = "" if site.dim is None else str(site.dim)
        position = Text(renamed(site.position, names))
        rows.add_row(site.kind, Text(site.buffer), dim, position, Text(shortened(site.source)), decision)
    return Group(head, rows)


def wide() -> Console:
    """A console as wide as the terminal; where there is none, wide enough for a report."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH, soft_wrap=True)


def colored(code: str) -> Text:
    """``code`` of a graph, or a diff: comments dim, what was added green, what was taken away red."""
    styles = {"#": "dim", "+": "green", "-": "red", "@": "cyan"}
    lines = [Text(line, style=styles.get(line[:1], "")) for line in code.splitlines()]
    return Text("\n").join(lines)


def plain(renderable: RenderableType) -> str:
    """``renderable`` as plain text."""
    console = Console(width=WIDTH, no_color=True, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())
