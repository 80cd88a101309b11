"""Reports as one HTML file that needs nothing else: data, scripts and styles are in it, and nothing is loaded from elsewhere.

The data is JSON in a script element. No character in it can end that element, and the page sets all text as text, so that a
module called ``<img onerror=...>`` is a name and no markup.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..explanation import Explanation
from ..model import Report
from .model import page_data

HERE = Path(__file__).parent
STYLES = ("page.css",)
SCRIPTS = ("data.js", "folding.js", "squeeze.js", "layout.js", "panes.js", "details.js", "search.js", "main.js")
LIBRARIES = ("dagre", "d3")


def html(reports: Report | Sequence[Report] | Explanation, path: str | os.PathLike[str]) -> None:
    """Write ``reports`` to ``path`` as one page: both graphs of each, side by side.

    Args:
        reports: one of `fxpass.reports`, or several, or what ``kvfix explain`` has found.
        path: of the file, which is written over.

    Raises:
        ValueError: there is no report.
    """
    if not isinstance(reports, Explanation):
        reports = Explanation([reports] if isinstance(reports, Report) else list(reports))
    if not reports.reports:
        raise ValueError("kvfix: no report to show; nothing has been compiled with kvfix")
    Path(path).write_text(page([page_data(report, reports.why(report)) for report in reports.reports]), encoding="utf-8")


def page(graphs: list[dict[str, Any]]) -> str:
    """The text of the page that shows ``graphs``."""
    inside = {
        "styles": _read("page", STYLES),
        "libraries": "\n".join(map(_library, LIBRARIES)),
        "scripts": _read("page", SCRIPTS),
        "data": _escaped({"graphs": graphs}),
    }
    return re.sub(r"{{(\w+)}}", lambda place: inside[place[1]], _read("page", ("page.html",)))


def _escaped(data: Any) -> str:
    """``data`` as JSON that is the same inside of a script element: ASCII, without ``<``, ``>`` and ``&``."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _library(name: str) -> str:
    """The code of a library under its license, without what would have a browser look for more files."""
    code = re.sub(r"//# sourceMappingURL=.*", "", _read("vendor", (f"{name}.min.js",)))
    return f"/* {name}\n\n{_read('vendor', (f'{name}.LICENSE',))}*/\n{code}"


def _read(folder: str, names: Sequence[str]) -> str:
    return "\n".join((HERE / folder / name).read_text(encoding="utf-8") for name in names)
