"""Calls and scripts run with their reports collected."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fxpass.report import store
from fxpass.report.explanation import Explanation
from fxpass.report.names import user_name
from fxpass.torch_internals.dynamo.names import get_compilation_metrics

from .counting import Counts, counting, recordings
from .target import Target


class Failed(Exception):
    """What was run ended with an error, its cause."""


def explained(run: Callable[[], None]) -> Explanation:
    """What came of ``run()``, from a fresh state of Dynamo and of kvfix.

    Raises:
        Failed: ``run`` ended with an error.
    """
    store.reset()
    with counting() as counts, store.collecting() as reports:
        try:
            run()
        except (Exception, SystemExit) as error:
            if not isinstance(error, SystemExit) or error.code:
                raise Failed from error
    return Explanation(reports, _recompilations(), _as_dict(counts))


def calls(target: Target, times: int, grad: bool, backend: str, options: Mapping[str, Any] | None = None) -> Callable[[], None]:
    """``target``'s callable, compiled with ``backend`` and called ``times`` times."""

    def run() -> None:
        compiled = torch.compile(target.fn, backend=backend, options=options)  # type: ignore[call-overload]
        with torch.set_grad_enabled(grad):
            for _ in range(times):
                compiled(*target.args, **target.kwargs)

    return run


def script(path: str, arguments: Sequence[str], grad: bool) -> Callable[[], None]:
    """The script at ``path``, run as ``python path arguments`` runs it."""

    def run() -> None:
        before = sys.argv, sys.path
        sys.argv, sys.path = [path, *arguments], [os.path.dirname(os.path.abspath(path)), *sys.path]
        try:
            with torch.set_grad_enabled(grad):
                runpy.run_path(path, run_name="__main__")
        finally:
            sys.argv, sys.path = before

    return run


def _recompilations() -> dict[str, str]:
    """By compilation, the guard that did not hold; of two of one id, the latest counts."""
    return {str(made.compile_id): _guard(made.recompile_reason or "") for made in get_compilation_metrics()}


def _guard(reason: str) -> str:
    """``0/0: L['p'] == 8  # ...`` without the compilation that it was a guard of, and where torch made it."""
    return user_name(reason.partition(": ")[2].partition("#")[0].strip() or reason)


def _as_dict(counts: Counts) -> dict[str, int]:
    own = {"graphs": counts.graphs, "breaks": counts.breaks, "recompilations": counts.recompiles}
    return own | ({"recordings": recordings(), "skipped recordings": len(counts.skips)} if torch.cuda.is_available() else {})


def stock_counts(run: Callable[[], None]) -> dict[str, int]:
    """What Dynamo counts of ``run()``, without kvfix."""
    with counting() as counts:
        run()
    return _as_dict(counts)


