"""The frame that Dynamo is compiling in this thread: whether it is compiled for kvfix, and what is known of it."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence, Set
from contextvars import ContextVar
from typing import Any

from fxpass.graph.source_lines import is_own, is_users
from fxpass.index_tensors.table import tables
from fxpass.torch_internals.dynamo.names import CompileContext, Unsupported, config, graph_break_reasons

_RAISES = {"Observed exception", "Assertion failed on symbolic shapes"}
"""Dynamo's names for an error that the traced code itself raises."""
_LIMIT = "Dynamo recompile limit exceeded"
"""Its name for the error by which a function gets no more graphs."""


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


def broken_at(gm: Any) -> tuple[str, str] | None:
    """Why the Dynamo graph ``gm`` ends in a graph break, and ``file:line`` of the code that broke it; None elsewhere."""
    ended = getattr(gm, "compile_subgraph_reason", None)
    if ended is None or not ended.graph_break:
        return None
    return broken_by(ended)


def breaks() -> list[tuple[str, str]]:
    """Reason and place of all graph breaks since `torch.compiler.reset`, also of those before which there is no graph."""
    return [broken_by(ended) for ended in graph_break_reasons]


def broken_by(ended: Any) -> tuple[str, str]:
    """Why Dynamo has ended a graph, by its record ``ended``, and ``file:line`` of the code that it was at."""
    return ended.reason.strip().splitlines()[0], _place(ended.user_stack)


def _place(stack: Sequence[Any] | None) -> str:
    """``file:line`` of the innermost frame of ``stack`` that is a user's; where none is, of the user's code that is running."""
    frame = next((one for one in reversed(stack or ()) if is_users(one.filename)), None)
    return f"{frame.filename}:{frame.lineno}" if frame else _running() or "an unknown line"


def _running() -> str:
    """``file:line`` of the user's code that has called what Dynamo compiles now."""
    frame: Any = sys._getframe()
    while frame is not None and (not is_users(file := frame.f_code.co_filename) or is_own(file)):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""


def left_out(error: Exception) -> tuple[str, str] | None:
    """Why Dynamo leaves the whole function that it was compiling to eager, because of ``error``, and ``file:line`` of the code
    that made it; None where the function itself raises, as eager is about to do, too."""
    if not isinstance(error, Unsupported) or error.gb_type in _RAISES:
        return None
    why = error.msg.strip().splitlines()[0].rstrip(".")
    said = why if not error.gb_type or error.gb_type.lower() in why.lower() else f"{why}, {error.gb_type}"
    return said, _place(error.real_stack)


def limited(error: Exception) -> str | None:
    """The guard on which the latest graph of the function under compilation has failed, where the ``error`` is that Dynamo
    makes no more graphs of it. None for any other error."""
    if getattr(error, "gb_type", None) != _LIMIT:
        return None
    compilation = current_compilation()
    failed = compilation.failed if compilation is not None else []
    return failed[0][1].partition("#")[0].strip() if failed else "unknown"


def current_compilation() -> Compilation | None:
    """The frame that is being compiled for kvfix in this thread; None if there is none."""
    return _current.get()
