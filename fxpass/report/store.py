"""The reports made so far, and what a user is told of them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from types import CodeType

import torch

from fxpass import reasons
from fxpass.errors import KvfixError, KvfixWarning, NotGrowing
from fxpass.graph.numbers import size_in_bytes
from fxpass.index_tensors import mirror
from fxpass.options import Options
from fxpass.torch_internals.dynamo.frames.compilation import Excluded, compile_id
from fxpass.torch_internals.dynamo.frames.history import current_code
from fxpass.torch_internals.dynamo.graph_breaks.causes import left_out, limited
from fxpass.torch_internals.dynamo.graph_breaks.resumed_functions import function_name
from fxpass.torch_internals.install import forget

from . import progress
from .channels import publish
from .model import Report
from .names import user_name
from .symbols import renamed, sources
from .value_types import type_of

_logger = logging.getLogger("fxpass")
MOST_REPORTS = 1000
"""So many reports are kept, those of the latest graphs."""


@dataclasses.dataclass
class _Made:
    """The latest reports, and how many graphs there have been."""

    reports: collections.deque[Report] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=MOST_REPORTS))
    total: int = 0
    collectors: list[list[Report]] = dataclasses.field(default_factory=list)


_made = _Made()


def new_report(name: str | None = None) -> Report:
    """A report for the next graph, of the model called ``name``. `add` it once it is certain that the graph is not traced
    again."""
    return Report(f"{name}, graph {_made.total}" if name else f"graph {_made.total}", compile_id=compile_id())


def add(report: Report, graphs: int = 1) -> None:
    """Count ``report`` among `reports`; it is of that many ``graphs``."""
    _made.reports.append(report)
    _made.total += graphs
    for collector in _made.collectors:
        collector.append(report)
    publish(report)


@contextlib.contextmanager
def collecting() -> Iterator[list[Report]]:
    """The reports that are made in the block, whatever is reset in it."""
    found: list[Report] = []
    _made.collectors.append(found)
    try:
        yield found
    finally:
        _made.collectors.remove(found)


def note(report: Report, text: str) -> None:
    """Put ``text`` among ``report.notes``, once."""
    if text not in report.notes:
        report.notes.append(text)


def reports() -> list[Report]:
    """One `Report` per graph compiled with kvfix since the last `reset`, in order: the latest 1,000."""
    return list(_made.reports)


def reset() -> None:
    """Forget all reports and every remembered index tensor, and zero the counters."""
    _made.reports.clear()
    _made.total = 0
    mirror.reset()
    forget()


def complain(report: Report, settings: Options, cause: Exception | None = None, code: CodeType | None = None) -> None:
    """Warn once of sites that were not rewritten, with reasons and source lines, of a cache that grows without a buffer, and of
    a graph that each call makes. If there is none of these, warn of work that is left outside of the static core.

    The warning is at the line of the first site, or of the function that is compiled (``code``).

    Raises:
        KvfixError: ``strict`` is set: the same, from ``cause``.
    """
    refused, names = [site for site in report.sites if site.decision == "refused"], sources(report.symbols)
    lines = [report.unfit] if report.unfit else []
    lines += dict.fromkeys(
        f"{site.source or site.buffer}: {site.kind} at {renamed(site.position, names)}: {site.reason}" for site in refused
    )
    if report.loses_slices:
        lines.append(report.ended)
    lines += [report.unbuffered] if report.lacks_buffer else []
    lines += map(user_name, report.pinned)
    lines += map(user_name, report.outside) if settings.strict or not lines else []
    if not lines:
        return
    stays = "would run" if settings.strict else "runs"
    message = f"kvfix: {report.name} {stays} as it is, in part or as a whole:\n  " + "\n  ".join(lines)
    if settings.strict:
        raise KvfixError(message) from cause
    code = code or current_code()
    function = f"{code.co_filename}:{code.co_firstlineno}" if code else ""
    file, _, line = next((site.source for site in refused if site.source), function).rpartition(":")
    if file:
        warnings.warn_explicit(message, KvfixWarning, file, int(line))
    else:
        warnings.warn(message, KvfixWarning, stacklevel=3)


def left_to_eager(settings: Options, code: CodeType, error: Exception) -> None:
    """Report that Dynamo leaves the function of ``code`` to eager because of ``error``: all of it, the calls that none of its
    graphs fits, or what it calls that is excluded. There is no graph for them.

    Raises:
        KvfixError: ``strict`` is set.
    """
    function = function_name(code)
    report = Report(function, compile_id=compile_id())
    if isinstance(error, Excluded):
        report.unfit = reasons.EXCLUDED.text(function=error.function, does=error.does, where=error.where)
    elif (guard := limited(error)) is not None:
        most = torch.compiler.config.recompile_limit
        report.unfit = reasons.NO_MORE_GRAPHS.text(function=function, most=most, guard=user_name(guard))
    elif (broken := left_out(error)) is not None:
        report.unfit = reasons.NOT_COMPILED.text(function=function, why=broken[0], where=broken[1])
    else:
        return
    add(report, graphs=0)
    complain(report, settings, error, code)


def unfit(report: Report, error: Exception, expected: bool) -> None:
    """Note in ``report`` that its graph runs as it is, because of ``error``. An error that was not ``expected`` is logged."""
    said = str(error).partition("\n\nWhile executing ")[0]  # which torch puts behind what is raised while a graph is run
    how = f"{type(error).__name__}: {said}"
    report.unfit = said if expected else reasons.PASS_FAILED.text(error=how)
    if not expected:
        _logger.warning("kvfix: %s: the pass failed", report.name, exc_info=error)


def buffered(report: Report, names: Sequence[str], buffers: Sequence[torch.Tensor]) -> None:
    """Note that ``buffers`` were made for what grows, the inputs called ``names``, in the place of those before."""
    report.buffers = [(name, type_of(b), size_in_bytes(b)) for name, b in zip(names, buffers, strict=True)]


def left_outside(report: Report, settings: Options, text: str) -> None:
    """Report what a call has shown to be left outside of the static core: ``text``, a reason.

    Raises:
        KvfixError: ``strict`` is set.
    """
    report.outside.append(text)
    complain(report, settings)


def failed(report: Report, settings: Options, error: Exception) -> None:
    """Report that the graph runs as it came: a part failed when it first ran, or there are buffers for what does not grow.

    ``report`` says so and, unless it is about a series, a warning does. A failure is logged.

    Raises:
        KvfixError: ``strict`` is set, and it is no series.
    """
    if isinstance(error, NotGrowing):
        report.buffers = []
        if error.is_series:
            note(report, str(error))
            return
        report.unbuffered = str(error)
        complain(report, settings, error)
        return
    report.unfit = reasons.HAND_OFF_FAILED.text(error=f"{type(error).__name__}: {error}")
    _logger.warning("kvfix: %s: the hand-off failed", report.name, exc_info=error)
    complain(report, settings, error)


@contextlib.contextmanager
def timed(report: Report, stage: str) -> Iterator[None]:
    """Add the seconds spent in the block to ``report.timings[stage]``, and show on a terminal that it is under way."""
    start = time.perf_counter()
    try:
        with progress.stage(f"{report.name}: {stage}"):
            yield
    finally:
        report.timings[stage] = report.timings.get(stage, 0.0) + time.perf_counter() - start
