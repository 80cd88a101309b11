"""Calls and scripts run with their reports collected."""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.cuda import is_available as has_gpu

from fxpass import reasons
from fxpass.report import Report, store
from fxpass.report.explanation import Explanation
from fxpass.report.names import user_name
from fxpass.torch_internals.dynamo.graph_breaks.causes import breaks
from fxpass.torch_internals.dynamo.names import get_compilation_metrics

from .counting import Counts, Launches, counting, graphs, launched, recordings
from .target import Target, one_line

LAUNCHES = "launches of CUDA graphs in a call"
Run = Callable[[], Launches | None]
"""Calls, or a script; gives what the last call launches, where there is a GPU to launch it on."""


def explained(run: Run, doing: str = "") -> Explanation:
    """What came of ``run()``, from a fresh state of Dynamo and of kvfix. If it fails, or the user ends it, the explanation
    covers the calls before, and its ``error`` tells what was being done (``doing``), and what happened."""
    store.reset()
    launches, failed = None, ""
    with counting() as counts, store.collecting() as reports:
        try:
            launches = run()
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if not isinstance(error, SystemExit) or error.code:
                failed = f"{doing}: {one_line(error)}"
    return Explanation(reports, _recompilations(), as_dict(counts, launches), error=failed, breaks=_breaks(reports))


def _breaks(reports: Sequence[Report]) -> list[str]:
    """The graph breaks that no report tells of, since there is no graph before them."""
    told = {report.ended for report in reports}
    said = dict.fromkeys(reasons.BREAK.text(why=why, where=where) for why, where in breaks())
    return [text for text in said if text not in told]


def calls(target: Target, times: int, grad: bool, backend: str, options: Mapping[str, Any] | None = None) -> Run:
    """``target``'s callable, compiled with ``backend`` and called ``times`` times.

    What the last call launches is that of a step only where it compiles and records nothing any more.
    """

    def run() -> Launches | None:
        compiled = torch.compile(target.fn, backend=backend, options=options)  # type: ignore[call-overload]
        with torch.set_grad_enabled(grad):
            for _ in range(times - 1):
                compiled(*target.args, **target.kwargs)
            before = graphs(), recordings()
            with launched() if has_gpu() else contextlib.nullcontext() as launches:
                compiled(*target.args, **target.kwargs)
        return launches if (graphs(), recordings()) == before else None

    return run


def script(path: str, arguments: Sequence[str], grad: bool) -> Run:
    """The script at ``path``, run as ``python path arguments`` runs it, or a module, as ``python -m path arguments`` does."""
    is_file = path.endswith(".py")

    def run() -> None:
        before = sys.argv, sys.path
        folder = os.path.dirname(os.path.abspath(path)) if is_file else os.getcwd()
        sys.argv, sys.path = [path, *arguments], [folder, *sys.path]
        try:
            with torch.set_grad_enabled(grad):
                if is_file:
                    runpy.run_path(path, run_name="__main__")
                else:
                    runpy.run_module(path, run_name="__main__", alter_sys=True)
        finally:
            sys.argv, sys.path = before

    return run


def _recompilations() -> dict[str, str]:
    """The guard that did not hold, for each compilation by its id; the latest one counts."""
    return {str(made.compile_id): _guard(made.recompile_reason or "") for made in get_compilation_metrics()}


def _guard(reason: str) -> str:
    """``0/0: L['p'] == 8  # ...`` without the compilation that it was a guard of, and where torch made it."""
    return user_name(reason.partition(": ")[2].partition("#")[0].strip() or reason)


def as_dict(counts: Counts, launches: Launches | None) -> dict[str, int | None]:
    """What was counted, by name; None for launches that could not be: without a GPU, of a script, or of a call unlike those to
    come."""
    return {
        "graphs": counts.graphs,
        "breaks": counts.breaks,
        "functions left to eager": counts.left,
        "recompilations": counts.recompiles,
        "recordings": recordings(),
        "skipped recordings": len(counts.skips) if has_gpu() else None,
        LAUNCHES: launches.graphs if launches else None,
        "launches of kernels in a call": launches.kernels if launches else None,
    }
