"""Python's garbage collector is paused while a graph is compiled.

Compiling makes millions of objects that live until it is done. The collector runs whenever many objects have been made: it
would walk through all of them again and again, and find next to nothing to free.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No collection in the block, or in the function that this decorates. What has no references left is still freed."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
