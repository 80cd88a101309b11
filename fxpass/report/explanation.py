"""What came of some calls: the reports of their graphs, why there is more than one, what was left, and what stock does.

`Explanation` is what ``kvfix explain`` prints (`explanation_text`) and writes as JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fxpass import reasons

from .model import Report


@dataclasses.dataclass
class Explanation:
    """The reports of some calls.

    again: by the id of a compilation, the guard that did not hold, so that the code was compiled once more.
    counts: what was counted with kvfix: "graphs", "breaks", "recompilations", "recordings", and on a GPU what a call launches.
        A count is None where it cannot be made.
    stock: the counts of stock torch.compile for the same calls; None where they were not asked for.
    error: how the calls failed, if they did; the reports are of those before.
    breaks: reasons for graph breaks before which there is no graph, and so no report.
    """

    reports: list[Report]
    again: Mapping[str, str] = dataclasses.field(default_factory=dict)
    counts: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    stock: Mapping[str, int | str | None] | None = None
    error: str = ""
    breaks: Sequence[str] = ()

    @property
    def is_left(self) -> bool:
        """Whether something was refused, runs as it came, does heavy work outside of the static core, is joined and got no
        buffer, or makes a graph in each call."""
        return any(r.refused or r.unfit or r.outside or r.lacks_buffer or r.pinned for r in self.reports)

    def why(self, report: Report) -> list[str]:
        """All reasons that concern the graph as a whole."""
        guard = self.again.get(report.compile_id)
        again = [reasons.AGAIN.text(guard=guard)] if guard else []
        faults = [fault.partition(": ") for fault in report.faults]
        hooks = [reasons.HOOK_FAILED.text(hook=hook, error=error) for hook, _, error in faults]
        whole = [report.unfit, report.unbuffered, report.ended]
        said = [*again, *report.pinned, *hooks, *whole, *report.outside, *report.beside, *report.notes]
        return [text for text in said if text]

    def bytes_read(self) -> tuple[int, int, int]:
        """The bytes that the reads of the last graph take per step: as the model wrote them, now, and masks (equal ones
        once)."""
        costs = [site.cost for site in self.reports[-1].sites if site.cost is not None] if self.reports else []
        masks = {(site.position, site.cost.mask) for site in self.reports[-1].sites if site.cost} if self.reports else set()
        return sum(c.before for c in costs), sum(c.now for c in costs), sum(mask for _, mask in masks)

    def as_json(self) -> dict[str, Any]:
        """This explanation as plain data."""
        return {
            "graphs": [self._graph(report) for report in self.reports],
            "breaks": list(self.breaks),
            "error": self.error,
            "bytes_read": dict(zip(("before", "now", "masks"), self.bytes_read(), strict=True)),
            "kvfix": dict(self.counts),
            "stock": None if self.stock is None else dict(self.stock),
            "left": self.is_left,
        }

    def _graph(self, report: Report) -> dict[str, Any]:
        sites = [
            {**dataclasses.asdict(site), "id": site.id, "cost": site.cost and site.cost._asdict()} for site in report.sites
        ]
        kept = ("name", "compile_id", "unfit", "unbuffered", "buffers", "faults", "pinned", "outside", "beside", "notes",
                "ended", "corrected", "timings")  # fmt: skip
        return {
            **{name: getattr(report, name) for name in kept},
            "again": self.again.get(report.compile_id, ""),
            "parts": [{"name": name, "static": static, "ops": ops} for name, static, ops in report.parts],
            "symbols": [symbol._asdict() for symbol in report.symbols],
            "sites": sites,
        }
