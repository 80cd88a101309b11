"""A frame that Dynamo fails on with our hooks is compiled without them.

If an assertion of Dynamo's fails then, too, the frame is left to Python. Stock Dynamo raises any other error as well.

    x + range(9)[idx[0]]        Dynamo asserts that an index is a constant, and has been given a number that moves.
                                Without hooks the graph breaks before it.

The first thing that is tried is to fix sizes that we have made dynamic, since Dynamo may have failed on one of their symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

from fxpass.torch_internals import garbage_collection
from fxpass.torch_internals.dynamo.frames import dynamic_marks
from fxpass.torch_internals.dynamo.frames.compilation import compiling
from fxpass.torch_internals.dynamo.frames.history import following, history_of
from fxpass.torch_internals.dynamo.names import InternalTorchDynamoError, Unsupported
from fxpass.torch_internals.patches import failures, tell

from .causes import limited
from .code_of_tensors import works_on_tensors


def compile_frame(
    is_ours: Callable[[Any], bool],
    left: Callable[[Any, CodeType, Exception], None],
    stock: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Compile a frame as ``stock`` does; the garbage collector is paused while one is compiled for kvfix.

    ``left`` is told of a frame that is left to Python although it works on tensors: some of its operators have been traced, its
    code says so, or it has graphs that depend on positions and gets no more. It is told, too, of what the frame calls that is
    excluded and works on caches.
    """
    compiler_fn = kwargs["compiler_fn"] if "compiler_fn" in kwargs else args[5]
    is_whole = kwargs["one_graph"] if "one_graph" in kwargs else args[6]  # Dynamo raises then
    if not is_ours(compiler_fn):
        with compiling(False):
            return stock(*args, **kwargs)
    with garbage_collection.paused():
        code, before = kwargs["code"] if "code" in kwargs else args[0], failures()
        while True:
            fault, is_made = None, False
            with compiling(True) as compilation, following(code):
                try:
                    made = stock(*args, **kwargs)
                    is_made = True
                except Exception as error:
                    if _is_dynamos_fault(error):
                        fault = error
                    elif failures() == before:  # it is the model's own
                        works = compilation.works or works_on_tensors(code)
                        if (works or limited(error) and _is_of_positions(code)) and not is_whole:
                            left(compiler_fn, code, error)
                        raise
            if is_made:
                for called in compilation.excluded:
                    left(compiler_fn, code, called)
                return made
            if fault is None or not dynamic_marks.take_back(code):
                break
        made = _without_hooks(code, stock, *args, **kwargs)
    if fault is not None:
        tell(compile_frame, fault)
    if isinstance(made, Unsupported):
        raise made
    return made


def _without_hooks(code: CodeType, stock: Any, *args: Any, **kwargs: Any) -> Any:
    """What ``stock`` makes of the frame of ``code``. A failed assertion of Dynamo's becomes an error that leaves the
    frame to Python."""
    with compiling(False), following(code):
        try:
            return stock(*args, **kwargs)
        except Exception as error:
            if type(error) is not AssertionError:  # stock raises it, too
                raise
            return Unsupported(f"kvfix: {type(error).__name__}: {error}")  # as at a break that nothing resumes


def _is_of_positions(code: CodeType) -> bool:
    """Whether the graphs of ``code`` slice caches, or need the value of a number that moves."""
    seen = history_of(code)
    return seen.slices or any(seen.pinned.values())


def _is_dynamos_fault(error: Exception) -> bool:
    return isinstance(error, InternalTorchDynamoError) or type(error) is AssertionError
