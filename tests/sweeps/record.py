"""What a sweep found: counted by group and outcome, printed as a table, kept as JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch

from .bounded import OUTCOMES, Outcome


@dataclasses.dataclass
class Record:
    """Outcomes by group (an operator, a rule) with the reasons and, of what must not be, the programs."""

    groups: dict[str, Counter[str]] = dataclasses.field(default_factory=lambda: defaultdict(Counter))
    reasons: dict[str, Counter[str]] = dataclasses.field(default_factory=lambda: defaultdict(Counter))
    faults: list[str] = dataclasses.field(default_factory=list)

    def add(self, group: str, program: str, outcome: Outcome) -> None:
        self.groups[group][outcome.kind] += 1
        for reason in outcome.reasons:
            self.reasons[outcome.kind][_general(reason)] += 1
        if outcome.kind in ("wrong", "crash"):
            self.faults.append(f"{outcome.kind}: {group} {program}: {'; '.join(outcome.reasons)}")

    def without(self, group: str) -> None:
        """Note that ``group`` has no program."""
        self.groups[group]["no sample"] += 1

    def merge(self, other: Record) -> None:
        for group, counts in other.groups.items():
            self.groups[group].update(counts)
        for kind, reasons in other.reasons.items():
            self.reasons[kind].update(reasons)
        self.faults += other.faults

    def summary(self) -> dict[str, dict[str, int]]:
        """How many programs there are of each outcome, and how many groups by their worst program."""
        programs: Counter[str] = sum(self.groups.values(), Counter())
        order = ("no sample", *OUTCOMES)
        groups = Counter(max((k for k in counts if counts[k]), key=order.index) for counts in self.groups.values())
        return {"programs": {k: programs[k] for k in OUTCOMES}, "groups": {k: groups[k] for k in order}}

    def save(self, path: Path, **about: Any) -> None:
        """Write everything to ``path``, with the versions it holds for."""
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        content = {
            "torch": torch.__version__,
            "commit": commit,
            "date": datetime.date.today().isoformat(),
            **about,
            **self.summary(),
            "faults": self.faults,
            "reasons": {kind: dict(reasons.most_common()) for kind, reasons in self.reasons.items()},
            "table": {group: dict(counts) for group, counts in sorted(self.groups.items())},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")


def _general(reason: str) -> str:
    """``reason`` without the name of the node that it arose at."""
    return reason.rsplit(" (at ", 1)[0]
