"""The frame that Dynamo is compiling in this thread: whether it is for kvfix, and what was found out about it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from contextvars import ContextVar

from fxpass.index_tensors.table import tables


@dataclasses.dataclass
class Compilation:
    """A frame that is compiled for kvfix, and the object of this process that it depends on, if it does."""

    process_bound: str = ""


_current: ContextVar[Compilation | None] = ContextVar("current", default=None)


@contextlib.contextmanager
def compiling(ours: bool) -> Iterator[None]:
    """Dynamo compiles a frame in the block, for kvfix or for another backend."""
    token = _current.set(Compilation() if ours else None)
    try:
        with tables():
            yield
    finally:
        _current.reset(token)


def current_compilation() -> Compilation | None:
    """The frame that is being compiled for kvfix; None in one for another backend."""
    return _current.get()
