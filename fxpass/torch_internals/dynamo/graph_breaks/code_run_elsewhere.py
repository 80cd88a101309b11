"""Code that a call which breaks the graph has run where Dynamo compiles nothing.

    eval("k[:, :p] @ w")                            a text, or code, that is evaluated
    Thread(target=attend, args=(k, p)).start()      a function that another thread runs, with all that it calls
    executor.submit(attend, k, p)

Dynamo does not look at what these are given, so whether a number moves is not known. What is looked at here makes no guards.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from threading import Thread
from types import CodeType
from typing import Any

import torch
from torch import nn

from fxpass.graph.source_lines import is_users
from fxpass.torch_internals.dynamo.names import ListVariable, TensorVariable, TupleVariable

from .code_of_tensors import takes_slices


def sliced_elsewhere(tx: Any, called: Sequence[Any]) -> tuple[str, str] | None:
    """What the call in ``tx`` of the variables ``called``, a function and its arguments, runs, and that it slices tensors."""
    given = [part for one in called for part in (one.items if isinstance(one, (ListVariable, TupleVariable)) else [one])]
    values = [*map(python_value, given)]
    if any(value in (eval, exec) for value in values if inspect.isbuiltin(value)):
        for code in filter(None, map(_evaluated, values)):
            if takes_slices(code) and _are_tensors(tx, code, given):
                return "an evaluated text", "slices tensors"
    elif any(map(_starts_threads, given)):
        for variable in given:
            run, names = _function(variable)
            if run and any(map(takes_slices, _reached(run, names, set()))) and _are_tensors(tx, run, given):
                return run.co_name, "slices tensors in another thread"
    return None


def python_value(variable: Any) -> Any:
    """The object of Python's that ``variable`` stands for, if it is one. To look at it makes no guards."""
    if hasattr(variable, "is_realized") and not variable.is_realized():
        return variable.original_value()
    own = vars(variable.realize() if hasattr(variable, "is_realized") else variable)
    return own.get("value", own.get("fn"))


def _evaluated(value: Any) -> CodeType | None:
    if isinstance(value, CodeType):
        return value
    try:
        return compile(value, "<string>", "exec") if isinstance(value, str) else None
    except (SyntaxError, ValueError):  # as the function itself will find out
        return None


def _starts_threads(variable: Any) -> bool:
    """Whether ``variable`` is a class of threads, or a method of what has threads to run functions in."""
    value, owner = python_value(variable), getattr(variable, "obj", None)
    is_class = isinstance(value, type) and issubclass(value, Thread)
    return is_class or owner is not None and isinstance(python_value(owner), Executor)


def _function(variable: Any) -> tuple[CodeType | None, Mapping[str, Any]]:
    """The code of the function ``variable`` and the globals that it sees."""
    if hasattr(variable, "get_code"):
        return variable.get_code(), variable.get_globals()
    return _code_of(python_value(variable))


def _code_of(value: Any) -> tuple[CodeType | None, Mapping[str, Any]]:
    function = type(value).forward if isinstance(value, nn.Module) else getattr(value, "__func__", value)
    return (function.__code__, function.__globals__) if inspect.isfunction(function) else (None, {})


def _reached(code: CodeType, names: Mapping[str, Any], seen: set[CodeType]) -> Iterator[CodeType]:
    """``code``, and that of the user's functions that it calls by a name among the globals ``names``."""
    seen.add(code)
    yield code
    for name in code.co_names:
        inner, its_names = _code_of(names.get(name))
        if inner is not None and inner not in seen and is_users(inner.co_filename):
            yield from _reached(inner, its_names, seen)


def _are_tensors(tx: Any, code: CodeType, given: Sequence[Any]) -> bool:
    """Whether a tensor or a module is ``given``, or is a local variable of ``tx`` that ``code`` names."""
    named = [tx.symbolic_locals[name] for name in (*code.co_names, *code.co_freevars) if name in tx.symbolic_locals]
    known = filter(None, [*given, *(_content(tx, variable) for variable in named)])
    return any(isinstance(one, TensorVariable) or isinstance(python_value(one), (torch.Tensor, nn.Module)) for one in known)


def _content(tx: Any, variable: Any) -> Any:
    """``variable``, or what is in it if it is a cell; None of an empty cell."""
    if not hasattr(variable, "pre_existing_contents"):
        return variable
    effects = tx.output.side_effects
    is_filled = effects.has_pending_mutation_of_attr(variable, "cell_contents") or variable.pre_existing_contents
    return effects.load_cell(variable) if is_filled else None
