"""Draws docs/pipeline.svg, README's picture: python docs/site/picture.py

The model of docs/tutorial.md is compiled, and its lines stand beside what the report shows of them: the graph as it was
captured, and the one that is compiled, without reshapes and with short names. What changes from step to step is marked.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

import torch

import fxpass

DOCS = Path(__file__).parents[1]
COLUMNS = ((16, 264, "The model"), (288, 318, "Captured, with a guard on pos"), (614, 346, "Compiled: no size moves"))
STAGES = ("capture", "analysis", "rewriting", "check", "hand-off")
LINE, CHARACTER, TOP = 15, 6.62, 104
LEFT_OUT = re.compile(r"= aten\.(reshape|to|unsqueeze|scalar_tensor|expand)\b")
LONG = re.compile(r"_default(_\d+)?|(?<=\w)_tensor(_\d+)?|_self(_\d+)?|\.self|_int\b|, device=cpu|aten\.")
SHOWN = ("start = int", "self.keys[", "k, v = self.keys", "y = scaled_dot")
STYLE = """
.page{fill:#ffffff;stroke:#d0d7de}.card{fill:#f6f8fa}.core{fill:#fff1eb}.rule{stroke:#d0d7de}
text{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#1f2328;white-space:pre}
.head,.stage{font:600 12px system-ui,sans-serif}.stage{fill:#f26b3a}.moves{fill:#d1242f;font-weight:600}
@media(prefers-color-scheme:dark){.page{fill:#0d1117;stroke:#30363d}.card{fill:#161b22}.core{fill:#2b1d16}.rule{stroke:#30363d}
text{fill:#e6edf3}.stage{fill:#f26b3a}.moves{fill:#ff7b72}}
"""


def report() -> fxpass.Report:
    """The report of the decode step of the tutorial's model."""
    code = re.findall(r"```python\n((?!>>>).*?)```", (DOCS / "tutorial.md").read_text(), re.S)[0]
    path = DOCS / "tutorial.md"
    names: dict = {}
    exec(compile(code, str(path), "exec"), names)  # the report reads the user's lines from the file
    text = path.read_text()
    offset = text[: text.index(code)].count("\n")
    exec(compile("\n" * offset + code, str(path), "exec"), names)
    torch.manual_seed(0)
    step = fxpass.explain(names["Decoder"]().eval(), compiler="eager")
    step(torch.randn(1, 5, 16))
    return step(torch.randn(1, 1, 16))


def sections(code: str) -> dict[str, list[str]]:
    """The lines of a graph by the user's line that they come from; those before the first are under ''."""
    found: dict[str, list[str]] = {"": []}
    for line in code.splitlines():
        if line.startswith("# "):
            found[latest := line.split("  ", 1)[1]] = []
        else:
            found[latest if len(found) > 1 else ""].append(line)
    return found


def rows(made: fxpass.Report) -> list[tuple[str, list[str], list[str]]]:
    """The user's line, its operators before and after: of a write, of a read, of what consumes it, and of the position."""
    before, after = sections(made.before), sections(made.after)
    position = [line for line in before[""] if ": pos = " in line]
    twin = [line for line in after[""] if " = aten" in line]
    lines = (DOCS / "tutorial.md").read_text().splitlines()
    texts = [next(line.strip() for line in lines if line.strip().startswith(start)) for start in SHOWN]
    return [(texts[0], position, twin)] + [(text, before[text], after.get(text, [])) for text in texts[1:]]


def wrapped(lines: list[str], width: int) -> list[str]:
    shorter = [LONG.sub("", line) for line in lines if not LEFT_OUT.search(line)]
    return [part for line in shorter for part in textwrap.wrap(line, int((width - 12) / CHARACTER), subsequent_indent="  ")]


def marked(line: str) -> str:
    return re.sub(r"pos \+ 1|\bpos\b|start:end|:end\b", lambda m: f'<tspan class="moves">{m[0]}</tspan>', escape(line))


def draw(made: fxpass.Report) -> str:
    """The picture."""
    body, y = [], TOP
    for k, stage in enumerate(STAGES):
        x = 16 + k * 118
        arrow = "→ " if k else ""
        body.append(f'<text class="stage" x="{x}" y="32">{arrow}{stage}</text>')
    for x, _, title in COLUMNS:
        body.append(f'<text class="head" x="{x + 8}" y="70">{escape(title)}</text>')
    for row in rows(made):
        cells = [wrapped(lines, width) for lines, (_, width, _) in zip(([row[0]], *row[1:]), COLUMNS, strict=True)]
        cells[2] = cells[2] or ["(the buffers, in full)"]
        for lines, (x, _, _) in zip(cells, COLUMNS, strict=True):
            body += [f'<text x="{x + 8}" y="{y + i * LINE}">{marked(line)}</text>' for i, line in enumerate(lines)]
        y += max(map(len, cells)) * LINE + 14
        body.append(f'<line class="rule" x1="16" x2="960" y1="{y - 18}" y2="{y - 18}"/>')
    body.pop()  # no rule below the last row
    height = y + 4
    cards = [
        f'<rect class="{"core" if k == 2 else "card"}" x="{x}" y="48" width="{width}" height="{height - 64}" rx="6"/>'
        for k, (x, width, _) in enumerate(COLUMNS)
    ]
    page = f'<rect class="page" x="0.5" y="0.5" width="975" height="{height - 1}" rx="8"/>'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 976 {height}" role="img">'
    title = "<title>A decode step as the model says it, as it is captured, and as it is compiled</title>"
    return "\n".join([opening, title, f"<style>{STYLE}</style>", page, *cards, *body, "</svg>"]) + "\n"


if __name__ == "__main__":
    (DOCS / "pipeline.svg").write_text(draw(report()))
