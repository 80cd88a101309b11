"""What was run, added up in a file: ``python -m tests.fuzz --seed N --record benchmarks/results/random_programs.json``.

Each run of one torch and compiler is a row, which is joined to the one that it goes on from at the same commit.
"""

from __future__ import annotations

import collections
import json
import subprocess
from pathlib import Path
from typing import Any

_COUNTED = ("programs", "sites", "refused", "stock fails too")


def add(path: Path, first: int, compiler: str, summary: dict[str, Any], commit: str = "") -> dict[str, Any]:
    """Add the tally ``summary`` of the programs from ``first`` on to the file ``path``; gives what it holds then."""
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    row = {
        "torch": summary["torch"].split("+")[0],
        "compiler": compiler,
        "commit": commit or _commit(),
        "first": first,
        "end": first + summary["programs"],
        **{name: summary[name] for name in _COUNTED},
        "failures": summary["failures"],
        "failed": [f"{failed['seed']}: {failed['kind']}: {failed['detail'][:160]}" for failed in summary["failed"]],
    }
    before = next((r for r in rows if _key(r) == _key(row) and r["end"] == first), None)
    if before is None:
        rows.append(row)
    else:
        _join(before, row)
    found = {"totals": totals(rows), "runs": sorted(rows, key=lambda r: (*_key(r), r["first"]))}
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What was counted with each torch and compiler."""
    found: dict[str, Any] = {}
    for row in rows:
        total = found.setdefault(f"{row['torch']} {row['compiler']}", {**dict.fromkeys(_COUNTED, 0), "failures": {}})
        _count(total, row)
    return dict(sorted(found.items()))


def _join(before: dict[str, Any], row: dict[str, Any]) -> None:
    before["end"], before["failed"] = row["end"], before["failed"] + row["failed"]
    _count(before, row)


def _count(total: dict[str, Any], row: dict[str, Any]) -> None:
    for name in _COUNTED:
        total[name] += row[name]
    total["failures"] = dict(sorted((collections.Counter(total["failures"]) + collections.Counter(row["failures"])).items()))


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["torch"], row["compiler"], row["commit"]


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
