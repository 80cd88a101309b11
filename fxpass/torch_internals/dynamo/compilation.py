"""The frame that Dynamo is compiling in this thread: whether it is compiled for kvfix, and what is known of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar

from fxpass.index_tensors.table import tables


@dataclasses.dataclass
class Compilation:
    """A frame that is compiled for kvfix.

    process_bound: why its guards hold in this process only; empty while nothing has been found that says so.
    """

    process_bound: str = ""


_current: ContextVar[Compilation | None] = ContextVar("current", default=None)


@contextlib.contextmanager
def compiling(ours: bool) -> Iterator[None]:
    """Dynamo compiles a frame in the block: for kvfix if it is ``ours``, otherwise for another backend."""
    token = _current.set(Compilation() if ours else None)
    try:
        with tables():
            yield
    finally:
        _current.reset(token)


def current_compilation() -> Compilation | None:
    """The frame that is being compiled for kvfix in this thread; None if there is none."""
    return _current.get()
