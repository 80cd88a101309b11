"""A piece of a report's code: from one line of the user's source to where that line comes up again.

A model's layers are the same source lines over and over, so ``section(report.before, "x = self.norm(x)")`` is the first
of them and ``section(..., occurrence=1)`` the second.
"""

from __future__ import annotations

import difflib
import re

from .model import Report


def section(code: str, source: str, occurrence: int = 0) -> list[str]:
    """The lines of ``code`` from the comment that holds ``source`` up to the next such comment.

    Raises:
        ValueError: ``source`` does not come up that often.
    """
    lines = code.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("#") and source in line]
    if occurrence >= len(starts):
        raise ValueError(f"{source!r} comes up {len(starts)} times in the graph")
    return lines[starts[occurrence] : (starts + [len(lines)])[occurrence + 1]]


def section_diff(report: Report, source: str, occurrence: int = 0, context: int = 1) -> str:
    """The unified diff of one `section`, before and after, with long names shortened."""
    before, after = (section(code, source, occurrence) for code in (report.before, report.after))
    lines = difflib.unified_diff(before, after, "before", "after", lineterm="", n=context)
    return shorten("\n".join(lines))


def shorten(code: str, limit: int = 40) -> str:
    """``code`` with names longer than ``limit`` cut in the middle."""
    return re.sub(rf"\w{{{limit + 1},}}", lambda m: f"{m[0][: limit // 2 - 1]}..{m[0][1 - limit // 2 :]}", code)
