"""Output of what a command runs goes to stderr, where a program is to read the command's own output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """What is written to stdout in the block goes to stderr: by Python, by other libraries, by processes that are started."""
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, _STDOUT)
        os.close(kept)
