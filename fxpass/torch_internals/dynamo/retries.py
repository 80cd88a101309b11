"""A frame that Dynamo fails on with our hooks is compiled without them. If an assertion of Dynamo's fails then, too, the frame
is left to Python. Any other error is raised in stock as well.

    x + range(9)[idx[0]]        Dynamo asserts that an index is a constant, and has been given a number that moves.
                                Without hooks the graph breaks before it.

Before that, sizes that were made dynamic by us are fixed again: it may have failed on one of their symbols.
"""

from __future__ import annotations

import dis
from collections.abc import Callable
from types import CodeType
from typing import Any

from fxpass.torch_internals import garbage_collection
from fxpass.torch_internals.dynamo.names import InternalTorchDynamoError, Unsupported
from fxpass.torch_internals.patches import failures, tell

from . import dynamism, frames
from .compilation import compiling

_SLICES = {"BUILD_SLICE", "BINARY_SLICE", "STORE_SLICE"}


def compile_frame(
    is_ours: Callable[[Any], bool],
    left: Callable[[Any, CodeType, Exception], None],
    stock: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Compile a frame as ``stock`` does; the garbage collector is paused while one is compiled for kvfix.

    ``left`` is told of a frame that is left to Python although it works on tensors: operators of it have been traced, or it
    takes slices.
    """
    compiler_fn = kwargs["compiler_fn"] if "compiler_fn" in kwargs else args[5]
    is_whole = kwargs["one_graph"] if "one_graph" in kwargs else args[6]  # Dynamo raises then
    if not is_ours(compiler_fn):
        with compiling(False):
            return stock(*args, **kwargs)
    with garbage_collection.paused():
        code, before = kwargs["code"] if "code" in kwargs else args[0], failures()
        while True:
            fault = None
            with compiling(True) as compilation, frames.following(code):
                try:
                    return stock(*args, **kwargs)
                except Exception as error:
                    if _is_dynamos_fault(error):
                        fault = error
                    elif failures() == before:  # it is the model's own
                        if (compilation.works or _takes_slices(code)) and not is_whole:
                            left(compiler_fn, code, error)
                        raise
            if fault is None or not dynamism.take_back(code):
                break
        with compiling(False), frames.following(code):
            try:
                made = stock(*args, **kwargs)
            except Exception as error:
                if type(error) is not AssertionError:  # stock raises it, too
                    raise
                made = Unsupported(f"kvfix: {type(error).__name__}: {error}")  # as at a break that nothing resumes
    if fault is not None:
        tell(compile_frame, fault)
    if isinstance(made, Unsupported):
        raise made
    return made


def _takes_slices(code: CodeType) -> bool:
    """Whether ``code`` takes slices of which a bound is no constant."""
    made = list(dis.get_instructions(code))
    slices = (i for i, one in enumerate(made) if one.opname in _SLICES)
    return any("LOAD_CONST" != bound.opname for i in slices for bound in made[max(i - 2, 0) : i])


def _is_dynamos_fault(error: Exception) -> bool:
    return isinstance(error, InternalTorchDynamoError) or type(error) is AssertionError
