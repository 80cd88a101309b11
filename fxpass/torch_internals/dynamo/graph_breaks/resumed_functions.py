"""Tensors that a function is given behind a graph break, and that have been cut out of a cache between the two graphs.

    rows = opaque(cache, p)           a function that is not compiled: the slice is taken in eager
    return (rows @ w).sum(1)          the graph behind the break is given rows, which have another size in each call

If the function itself is given a tensor of that size, a prompt or a series, the size is the caller's, and nothing was cut.

Dynamo leaves code to Python that is given no tensor. What a function goes on with may make one, and is compiled all the same:

    cache = pickle.loads(pickle.dumps(cache))        the rest is given bytes
    return (cache[:, :p] @ w).sum(1)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import CodeType
from typing import Any

import torch
from torch import fx

from fxpass.graph.inputs import dynamo_source
from fxpass.graph.numbers import hint, to_expr
from fxpass.graph.source_lines import source_of
from fxpass.torch_internals.dynamo.frames.history import current_code, history_of, is_known
from fxpass.torch_internals.dynamo.names import ContinueExecutionCache
from fxpass.torch_internals.operators import tree_leaves
from fxpass.torch_internals.patches import patch

from .code_of_tensors import works_on_tensors


def install() -> None:
    """Let Dynamo compile what a function goes on with, also where it is given no tensor."""
    patch("torch._dynamo.convert_frame.has_tensor_in_frame", _has_tensor)


def _has_tensor(stock: Any, frame: Any) -> bool:
    """Whether to compile ``frame``. An exception that it is given is raised there, which Dynamo of torch 2.11 fails on."""
    if stock(frame):
        return True
    original, given = _original(frame.f_code), frame.f_locals.values()
    goes_on = original is not None and is_known(original) and works_on_tensors(frame.f_code)
    return goes_on and not any(isinstance(value, BaseException) for value in given)


def function_name(code: CodeType) -> str:
    """What the user calls the function of ``code``. This may be code of Dynamo's, which goes on behind a break."""
    original = _original(code)
    return code.co_name if original is None else f"the rest of {original.co_name}"


def cut_between(
    gm: fx.GraphModule, rising: Sequence[Any], loses: bool, joins: bool = False, works: bool = False
) -> list[tuple[str, str]]:
    """The tensors that were cut out of a cache before the Dynamo graph ``gm``, which goes on behind a graph break: the line
    that first uses each, and its name. They have a size among the ``rising`` ones, and nothing that the function is given has
    a size that moves.

    Args:
        gm: the graph.
        rising: the sizes that have been seen to rise.
        loses: whether a slice leaves ``gm`` for another break. The graphs behind that one are not told of again.
        joins: whether a cache that ``gm`` makes longer leaves it so. What the function is given may then have sizes that move.
        works: whether ``gm`` works on all of what it is given. Where a cache that was made longer is lost, only such graphs are
            told of.
    """
    code = current_code()
    original = _original(code)
    seen = history_of(original or code) if code is not None else None
    if seen is None or seen.loses_slices:
        return []
    seen.loses_slices = loses
    seen.loses_joined |= joins
    is_cut = works if seen.loses_joined else not seen.calls.sizes_move
    handed = _sizes_handed_to(original) if original is not None and rising and is_cut else None
    if handed is None or original is None:
        return []
    sizes, found = {to_expr(size) for size in rising}, []
    for node in gm.graph.find_nodes(op="placeholder"):
        source, value = dynamo_source(node), node.meta.get("example_value")
        own = {hint(s) for s in value.shape if to_expr(s) in sizes} if isinstance(value, torch.Tensor) else set()
        if source is not None and node.users and own and not own & handed:
            found.append((source_of(next(iter(node.users))), _name(source, original)))
    return found


def _name(source: Any, code: CodeType) -> str:
    """The name of ``source`` in ``code``. A tensor that Dynamo has taken from the stack has no name there."""
    named = any(f"L[{name!r}]" in source.name for name in (*code.co_varnames, *code.co_cellvars, *code.co_freevars))
    return source.name if named else "a tensor without a name"


def _original(code: CodeType | None) -> CodeType | None:
    """The function that ``code`` goes on with, which Dynamo has made; None for a function of the user's."""
    made = getattr(ContinueExecutionCache, "generated_code_metadata", {}).get(code)  # none where torch has no such name
    return None if made is None else made.code


def _sizes_handed_to(code: CodeType) -> set[int] | None:
    """The sizes of the tensors among the arguments of the call of ``code`` that is under way; None where there is none.

    Dynamo runs code of its own making in its place, of the same name at the same line.
    """
    frame: Any = sys._getframe()
    while frame is not None and _place(frame.f_code) != _place(code):
        frame = frame.f_back
    if frame is None:
        return None
    given = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
    return {size for value in tree_leaves(given) if isinstance(value, torch.Tensor) for size in value.shape}


def _place(code: CodeType) -> tuple[str, int, str]:
    return code.co_filename, code.co_firstlineno, code.co_name
