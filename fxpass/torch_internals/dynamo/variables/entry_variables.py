"""Entries of index tensors as Dynamo variables: a constant, a graph input with a guard, or arithmetic in the graph.

    Element(idx, 0)                     s0              an input of the graph
    Arith(add, Element(idx, 0), 1)      s0 + 1          computed from it
    Arith(any_of, ...)                  True            a guard on the outcome
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.graph.numbers import CEILINGS, ceiling, fits_int64, known
from fxpass.index_tensors.arithmetic import NotCovered
from fxpass.index_tensors.contents import Arith, Element, Entry, GraphInt, in_order
from fxpass.index_tensors.functions import (
    FOLDS,
    PAIRWISE,
    TRUTHS,
    all_of,
    any_of,
    choose,
    how_many,
    int32,
    int64,
    product,
    total,
)
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.names import BuiltinVariable, ConstantVariable, SymNodeVariable

from .guarded_numbers import aggregate_variable, element_variable, is_aggregate

_OPERATORS = {total: operator.add, product: operator.mul}
MAX_SIZE = 256
"""A number that takes more operators and symbols than this to write down is not followed."""


def variable_of(tx: Any, entry: Entry | None) -> Any:
    """``entry`` as a constant, on which a guard is installed here, or as a SymInt variable.

    What it is computed from is put into the graph once, or again where Dynamo has erased it.

    Raises:
        NotCovered: it is not known, or cannot be a number of the graph.
    """
    if entry is None:
        raise NotCovered
    if isinstance(entry, int):
        return ConstantVariable.create(entry)
    made = Table.of(tx.output.graph).variables
    for part in in_order([entry], functools.partial(is_aggregate, tx)):
        if part not in made or made[part].is_python_constant() or made[part].as_proxy().node._erased:
            made[part] = _made(tx, part, made)
    return made[entry]


def _made(tx: Any, entry: Element | GraphInt | Arith, made: Mapping[Entry, Any]) -> Any:
    if isinstance(entry, Element):
        return element_variable(tx, entry)
    if isinstance(entry, GraphInt):
        value = entry.node.meta["example_value"]
        return SymNodeVariable.create(tx, fx.Proxy(entry.node, tx.output.root_tracer), value)
    if is_aggregate(tx, entry):
        return aggregate_variable(tx, entry)
    args = [ConstantVariable.create(arg) if isinstance(arg, int) else made[arg] for arg in entry.args]
    if entry.fn is int32:
        return _within(args[0])
    if entry.fn is choose:
        return args[1] if bool(plain_number(args[0])) else args[2]  # guards
    if entry.fn in (any_of, all_of, how_many):
        return ConstantVariable.create(entry.fn(*(bool(plain_number(arg)) for arg in args)))  # guards
    if entry.fn in FOLDS and entry.fn not in PAIRWISE:
        raise NotCovered
    args = args if entry.fn in TRUTHS else [_as_number(arg) for arg in args]
    return functools.reduce(functools.partial(applied, tx, _OPERATORS.get(entry.fn, entry.fn)), args[1:], args[0])


def _as_number(variable: Any) -> Any:
    """``variable``, or 1 or 0 for a truth value, which arithmetic on symbols does not take. One that moves is guarded."""
    value = plain_number(variable)
    return ConstantVariable.create(int(bool(value))) if isinstance(value, (bool, torch.SymBool)) else variable


def applied(tx: Any, fn: Callable[..., Any], *args: Any) -> Any:
    """The number ``fn(*args)``. A maximum or minimum is the operand that it is known to be, if it is known.

    Raises:
        NotCovered: it takes too much to write down, or may not fit in 64 bits.
    """
    if fn in (max, min):
        a, b = map(plain_number, args)
        if known(a >= b) or known(a <= b):
            return args[known(a >= b) == (fn is min)]
    if sum(_size(arg) for arg in args) > MAX_SIZE:
        raise NotCovered
    number = BuiltinVariable(fn).call_function(tx, list(args), {})
    if not number.is_python_constant():
        if not fits_int64(number.sym_num):
            raise NotCovered
    elif not isinstance(number.as_python_constant(), bool):
        return ConstantVariable.create(int64(number.as_python_constant()))
    return number


def plain_number(variable: Any) -> Any:
    """The constant or SymInt that a number is."""
    return variable.as_python_constant() if variable.is_python_constant() else variable.sym_num


def _size(variable: Any) -> int:
    """How many operators and symbols ``variable`` is written with. SymPy takes exponential time for nested ones."""
    value = plain_number(variable)
    return 1 if isinstance(value, int) else _written(value.node.expr)


def _written(expr: sympy.Basic) -> int:
    """The size of the text of ``expr``: guards write ``(s0 + 1)**3`` as a product of three."""
    if expr.is_Pow and expr.args[1].is_Integer:
        return abs(int(expr.args[1])) * _written(expr.args[0])
    return 1 + sum(map(_written, expr.args))


def guard_range(number: Any, value: int) -> None:
    """Guard ``number``, which is ``value`` now, to keep its sign, and to stay below its `ceiling`."""
    if value >= 0:
        bool(number >= 0)
    if (end := ceiling(value)) < CEILINGS[-1]:
        bool(number < end if value >= 0 else number > -end)


def _within(number: Any) -> Any:
    """``number`` as 32 bits hold it. A number that moves is guarded to fit, since one that overflows is not followed."""
    if number.is_python_constant():
        return ConstantVariable.create(int32(number.as_python_constant()))
    if not (number.sym_num >= -(2**31) and number.sym_num < 2**31):
        raise NotCovered
    return number
