"""What was run is added up: runs that go on from each other are one row, and totals are of one torch and compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import record


def tally(programs: int, **more: Any) -> dict[str, Any]:
    failed = [{"seed": 7, "kind": kind, "detail": "x"} for kind in more.get("failures", {})]
    none = {"torch": "2.13.0+cpu", "sites": 4, "refused": 1, "stock fails too": 0, "failures": {}, "failed": failed}
    return {**none, "programs": programs, **more}


def test_runs_add_up(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    record.add(path, 100, "eager", tally(10), "abc")
    record.add(path, 110, "eager", tally(5, failures={"graphs": 1}), "abc")
    record.add(path, 200, "eager", tally(5), "abc")
    record.add(path, 115, "eager", tally(5), "def")
    found = record.add(path, 115, "aot_eager", tally(1), "abc")
    assert [(r["compiler"], r["commit"], r["first"], r["end"]) for r in found["runs"]] == [
        ("aot_eager", "abc", 115, 116), ("eager", "abc", 100, 115), ("eager", "abc", 200, 205), ("eager", "def", 115, 120)
    ]  # fmt: skip
    assert found["totals"]["2.13.0 eager"] == {
        "programs": 25, "sites": 16, "refused": 4, "stock fails too": 0, "failures": {"graphs": 1}
    }  # fmt: skip
    assert found["runs"][1]["failed"] == ["7: graphs: x"]
