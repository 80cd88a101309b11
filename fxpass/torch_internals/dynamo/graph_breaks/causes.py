"""Why Dynamo has ended a graph, or leaves a function to Python, and at which line of the user's code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from fxpass.graph.source_lines import is_own, is_users
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import Unsupported, graph_break_reasons

_RAISES = {"Observed exception", "Assertion failed on symbolic shapes"}
"""Dynamo's names for an error that the traced code itself raises."""
_LIMIT = "Dynamo recompile limit exceeded"
"""Its name for the error by which a function gets no more graphs."""


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
