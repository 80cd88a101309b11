"""Where Dynamo makes another number of one that moves than Python does, or none, a guard holds what decides.

    scales[p > 4], -(p > 4)     stock: an error         kvfix: a guard on p > 4
    max(p, 4.5)                 stock: a float          kvfix: an int, or a float, under a guard on which is larger
    round(p, -1)                stock: p                kvfix: a graph for each value
    p < math.nan                stock: an error         kvfix: False
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import torch

from fxpass.graph.numbers import is_nan
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import (
    ConstantVariable,
    ListVariable,
    SymNodeVariable,
    TupleVariable,
    compare_op_handlers,
)
from fxpass.torch_internals.dynamo.variables.entry_variables import plain_number
from fxpass.torch_internals.dynamo.variables.numbers import known_truth
from fxpass.torch_internals.dynamo.variables.realized import realized
from fxpass.torch_internals.patches import patch, patch_attribute
from fxpass.torch_internals.symbols import free_unbacked_symbols

from .identity import among

_PLACES = ("getitem", "is_", "is_not")
_ARITHMETIC = ("xor", "neg", "pos", "invert", "truediv", "floordiv", "mod", "pow", "lshift", "rshift")
_OF_OUTCOMES = [*(getattr(operator, name) for name in (*_PLACES, *_ARITHMETIC)), abs, pow, divmod]
"""Functions that take no truth value that moves."""
_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne}
_OF_BITS = [operator.and_, operator.or_]
"""Functions that give a truth value of two of these, and an int if one is an int."""


def install() -> None:
    """Install the hooks, which act while a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.BuiltinVariable.call_function", _call_builtin)
    for sign, fn in _COMPARISONS.items():
        patch_attribute(compare_op_handlers, sign, functools.partial(_compare, fn))


def _call_builtin(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    if kwargs or current_compilation() is None:
        return stock(self, tx, args, kwargs)
    if among(self.fn, _COMPARISONS.values()) and (outcome := _beside_nan(self.fn, args)) is not None:
        return outcome
    if among(self.fn, _OF_OUTCOMES) or among(self.fn, _OF_BITS) and any(map(_is_int, args)):
        kept = 1 if self.fn is operator.getitem else 0  # the list, which is not looked into
        args = [*args[:kept], *(known_truth(tx, arg) for arg in args[kept:])]
    if self.fn is round and len(args) == 2 and _is_int(args[0]) and not args[0].is_python_constant():
        args = [ConstantVariable.create(realized(args[0]).evaluate_expr()), args[1]]
    chosen = _chosen(self.fn, args) if among(self.fn, [max, min]) else None
    return stock(self, tx, args, kwargs) if chosen is None else chosen


def _compare(fn: Any, stock: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    outcome = None if current_compilation() is None else _beside_nan(fn, args)
    return stock(tx, args, kwargs) if outcome is None else outcome


def _beside_nan(fn: Any, args: Any) -> Any:
    """The outcome of the comparison ``fn`` of a number that moves and NaN, which is the same for all numbers; else None."""
    each = [*map(realized, args)]
    has_nan = any(isinstance(v, SymNodeVariable) for v in each) and any(is_nan(_number(v)) for v in each)
    return ConstantVariable.create(fn(0, math.nan)) if has_nan else None


def _is_int(variable: Any) -> bool:
    """Whether ``variable`` is an int, and no truth value."""
    number = _number(realized(variable))
    return isinstance(number, (int, torch.SymInt)) and not isinstance(number, bool)


def _number(variable: Any) -> Any:
    is_known = isinstance(variable, SymNodeVariable) or variable.is_python_constant()
    return plain_number(variable) if is_known else None


def _chosen(fn: Any, args: Any) -> Any:
    """The one of ``args`` that is the largest or smallest, if there are ints and floats among them and one moves; else None."""
    each = [*map(realized, args)]
    if len(each) == 1 and isinstance(each[0], (ListVariable, TupleVariable)):
        each = [*map(realized, each[0].items)]
    numbers = [_number(variable) for variable in each]
    floats = [isinstance(number, (float, torch.SymFloat)) for number in numbers]
    moves = any(isinstance(variable, SymNodeVariable) for variable in each)
    if not moves or not any(floats) or not all(f or _is_int(v) for f, v in zip(floats, each, strict=True)) or all(floats):
        return None
    if any(free_unbacked_symbols(number) for number in numbers):
        return None
    return each[functools.reduce(lambda best, i: i if _beats(fn, numbers[i], numbers[best]) else best, range(len(each)))]


def _beats(fn: Any, number: Any, best: Any) -> bool:
    """Whether ``fn``, which is ``max`` or ``min``, takes ``number`` and not ``best``, under a guard. NaN compares with none."""
    return not is_nan(number) and not is_nan(best) and bool(number > best if fn is max else number < best)
