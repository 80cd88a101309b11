"""The reports made so far."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from fxpass import capture
from fxpass.capture import mirror
from fxpass.report import Report

_reports: list[Report] = []


def new_report() -> Report:
    """A report for the next graph; `add` it once it is certain that the graph is not traced again."""
    return Report(f"graph {len(_reports)}")


def add(report: Report) -> None:
    """Count ``report`` among `reports`."""
    _reports.append(report)


def reports() -> list[Report]:
    """One `Report` per graph compiled with kvfix since the last `reset`, in order."""
    return list(_reports)


def reset() -> None:
    """Forget all reports and every remembered index tensor, and zero the counters."""
    _reports.clear()
    mirror.reset()
    capture.forget()


@contextlib.contextmanager
def timed(report: Report, stage: str) -> Iterator[None]:
    """Add the seconds spent in the block to ``report.timings[stage]``."""
    start = time.perf_counter()
    try:
        yield
    finally:
        report.timings[stage] = report.timings.get(stage, 0.0) + time.perf_counter() - start
