"""While a graph is compiled, Python's garbage collector rests.

Compiling makes millions of objects that live until it is done. The collector, which counts what is made, walks through all
of them, and all that Dynamo and Inductor hold, again and again, and finds next to nothing.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No collection in the block, or in the function that this decorates; reference counts free what they free."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
