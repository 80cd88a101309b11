"""A report as text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fxpass import Report, Site
from fxpass.report.excerpt import section, section_diff, shorten

SITES = [
    Site("predicate", "", None, "s0 + 1 <= 16", "/a/b/cache/kv.py:4", "rewritten"),
    Site("write", "L['cache']._keys", 2, "s0, s0 + 1", "/a/b/cache/kv.py:5", "rewritten"),
    Site("read", "L['cache']._keys", 2, "s0 + 1", "/a/b/attention.py:9", "refused", "no rule for aten.sort"),
]
BEFORE = """x: f32[2] = input
# m.py:1  y = norm(x)
a: f32[2] = aten.abs(x)
b: f32[s0] = aten.slice(a, 0, 0, s0)
# m.py:2  z = y + 1
c: f32[2] = aten.add(a, 1)
# m.py:1  y = norm(x)
d: f32[2] = aten.abs(c)
return (d)"""


class Written(Report):
    """A report of which the code is given."""

    before = BEFORE  # type: ignore[assignment]
    after = BEFORE.replace("aten.slice(a, 0, 0, s0)", "aten.clone(a)")  # type: ignore[assignment]


def make(**fields: object) -> Report:
    return Written("graph 3", list(SITES), **fields)  # type: ignore[arg-type]


def test_table():
    report = make(parts=[("prologue", False, 7), ("core", True, 90)], timings={"rewrite": 0.25, "split": 0.5})
    assert str(report).splitlines() == [
        "graph 3: 2 rewritten, 1 refused; prologue (7 ops) -> core (90 ops, static); 0.75 s",
        "kind       buffer            dim  position      source            decision",
        "predicate                         s0 + 1 <= 16  cache/kv.py:4     rewritten",
        "write      L['cache']._keys  2    s0, s0 + 1    cache/kv.py:5     rewritten",
        "read       L['cache']._keys  2    s0 + 1        b/attention.py:9  refused: no rule for aten.sort",
    ]


def test_without_sites():
    assert str(Report("graph 0", unfit="Unfit: grad mode is on")) == (
        "graph 0: 0 rewritten, 0 refused; not rewritten: Unfit: grad mode is on"
    )


def test_narrow_terminals_fold_and_lose_nothing():
    stream = io.StringIO()
    Console(file=stream, width=60).print(make())
    assert "…" not in stream.getvalue()
    assert all(len(line) <= 60 for line in stream.getvalue().splitlines())


def test_markup_in_names_is_text():
    report = Report("graph 0", [Site("read", "L['x'][red]", 0, "s0", "[bold]m.py:1", "rewritten")])
    assert "L['x'][red]" in str(report) and "[bold]m.py:1" in str(report)


def test_section():
    assert section(BEFORE, "y = norm(x)") == BEFORE.splitlines()[1:6]
    assert section(BEFORE, "y = norm(x)", 1) == BEFORE.splitlines()[6:]
    with pytest.raises(ValueError, match="comes up 2 times"):
        section(BEFORE, "y = norm(x)", 2)


def test_section_diff():
    assert section_diff(make(), "y = norm(x)").splitlines()[3:] == [
        " a: f32[2] = aten.abs(x)",
        "-b: f32[s0] = aten.slice(a, 0, 0, s0)",
        "+b: f32[s0] = aten.clone(a)",
        " # m.py:2  z = y + 1",
    ]


def test_shorten():
    assert shorten("short, " + "a" * 30 + "b" * 30) == "short, " + "a" * 19 + ".." + "b" * 19
