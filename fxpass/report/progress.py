"""A line on the terminal says what kvfix is doing while it compiles. There is no line where stderr is no terminal.

    ⠋ kvfix: graph 1: rewrite
    ⠋ kvfix: compiling the core, 412 ops
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.status import Status


@dataclasses.dataclass
class _Shown(threading.local):
    """The stages that a thread is in, the outermost first, and the line that shows the last of them."""

    stages: list[str] = dataclasses.field(default_factory=list)
    line: Status | None = None


_shown = _Shown()


@contextlib.contextmanager
def stage(what: str) -> Iterator[None]:
    """Show ``what`` while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    _shown.stages.append(f"kvfix: {what}")
    _show()
    try:
        yield
    finally:  # also where the user interrupts it
        _shown.stages.pop()
        _show()


def _show() -> None:
    if not _shown.stages:
        if _shown.line is not None:
            _shown.line.stop()
            _shown.line = None
        return
    if _shown.line is None:
        _shown.line = Console(stderr=True).status(_shown.stages[-1])
        _shown.line.start()
    _shown.line.update(_shown.stages[-1])
