"""The frame that Dynamo is compiling in this thread: whether it is compiled for kvfix, and what is known of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Set
from contextvars import ContextVar
from typing import Any

from fxpass.index_tensors.table import tables
from fxpass.torch_internals.dynamo.names import CompileContext, config


class Excluded(Exception):
    """The ``function`` is not compiled, and ``does`` something with a cache; it is called at the place ``where``."""

    def __init__(self, function: str, does: str, where: str) -> None:
        super().__init__(f"{function} at {where}")
        self.function, self.does, self.where = function, does, where


@dataclasses.dataclass
class Compilation:
    """A frame that is compiled for kvfix.

    process_bound: why its guards hold in this process only; empty while nothing has been found that says so.
    guard_failed: whether a guard of ours could not be made or evaluated.
    remembered: what functions that remember have returned in each graph (`calls.remembered`).
    works: whether an operator has been traced.
    is_dynamic: whether sizes that move become symbols; False under ``dynamic=False``.
    failed: for each graph that the frame has, the latest first, the id of its compilation and the guard that does not hold.
    excluded: the functions that it calls at a graph break, and that work on caches in eager (`excluded_functions`).
    moved_sizes: for each size of the frame's inputs that differs from the one at first, that one and the size of now; None
        until they are asked for (`sizes.dynamism`).
    """

    process_bound: str = ""
    guard_failed: bool = False
    remembered: dict[Any, Any] = dataclasses.field(default_factory=dict)
    works: bool = False
    is_dynamic: bool = True
    failed: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    excluded: list[Excluded] = dataclasses.field(default_factory=list)
    moved_sizes: Set[tuple[int, int]] | None = None


_current: ContextVar[Compilation | None] = ContextVar("current", default=None)


@contextlib.contextmanager
def compiling(ours: bool) -> Iterator[Compilation]:
    """Dynamo compiles a frame in the block: for kvfix if it is ``ours``, otherwise for another backend, or without hooks."""
    compilation = Compilation(is_dynamic=config.automatic_dynamic_shapes)
    token = _current.set(compilation if ours else None)
    try:
        with tables():
            yield compilation
    finally:
        _current.reset(token)


def compile_id() -> str:
    """What torch's logs call the compilation under way, ``0/1``; empty outside of one."""
    found = CompileContext.current_compile_id()
    return "" if found is None else str(found)


def current_compilation() -> Compilation | None:
    """The frame that is being compiled for kvfix in this thread; None if there is none."""
    return _current.get()
