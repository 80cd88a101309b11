"""The numbers that tensors of a captured graph hold, as Dynamo variables.

    pos = int(idx[0].item())        s0                      a SymInt input, or a guarded constant
    n = (idx.max() + 1).item()      max(s0, s1) + 1         computed in the graph
    idx.tolist()                    [s0, s1]

The table of the graph says what a tensor holds (`index_tensors.table`). What it does not know is left to Dynamo.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy
import torch
from torch import fx

from fxpass.graph.numbers import CEILINGS, ceiling, fits_int64, known
from fxpass.graph.schemas import memory_of
from fxpass.index_tensors.arithmetic import NotCovered, is_truth
from fxpass.index_tensors.contents import Arith, Element, Entry, GraphInt, in_order
from fxpass.index_tensors.expressions import expression_of
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
from fxpass.index_tensors.small_tensors import shape_of
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.names import (
    BuiltinVariable,
    ConstantVariable,
    ListVariable,
    SymNodeVariable,
    TensorVariable,
    ValueMutationNew,
)
from fxpass.torch_internals.dynamo.sizes.fixed import fix_numbers, has_symbolic_size
from fxpass.torch_internals.symbols import free_unbacked_symbols

from .guarded_numbers import aggregate_variable, element_variable, expression_variable, is_aggregate
from .realized import realized

_OPERATORS = {total: operator.add, product: operator.mul}
MAX_EXPRESSIONS = 16
"""Of a tensor that no rule covers, with more elements than this, the numbers are not followed."""
MAX_SIZE = 256
"""A number that takes more operators and symbols than this to write down is not followed."""


def number_in(tx: Any, node: fx.Node, by_ops: bool = True) -> Any:
    """The number that the tensor ``node`` holds, as a constant or SymInt variable; None where it is not known.

    ``by_ops``: whether a number that the table does not know may be found by running ops again in each call (`expressions`).
    """
    output = tx.output
    if node.graph is not output.graph:
        return None  # it is in the subgraph of a higher-order operator
    table = Table.of(output.graph)
    moves = has_symbolic_size(node)
    expression = expression_of(table, node) if moves else None
    fix_numbers(tx, node, expression.inputs if expression else ())
    entry = table.entry(node)

    def by_operators() -> Any:
        found = expression if moves else expression_of(table, node)
        if found is None or not by_ops:
            raise NotCovered
        return expression_variable(tx, found)

    ways: list[Callable[[], Any]] = [by_operators, functools.partial(_variable, tx, entry)]
    if entry is None:
        ways.insert(0, functools.partial(_sum, tx, table, node))
    for way in ways if entry is None or _rests_on_truths(entry) else reversed(ways):
        with contextlib.suppress(NotCovered):
            return way()
    return None


def _rests_on_truths(entry: Entry | None) -> bool:
    """Whether ``entry`` is computed from comparisons with sizes or the caller's ints, or adds several comparisons up. Each of
    them would be a guard."""
    if not isinstance(entry, Arith):
        return False
    parts = [part for part in in_order([entry]) if part is not entry and isinstance(part, Arith)]
    asked = [part for part in parts if is_truth(part)]
    adds = len(asked) > 1 and any(part.fn is total for part in (entry, *parts))
    return adds or any(isinstance(operand, GraphInt) for part in asked for operand in part.args)


def _sum(tx: Any, table: Table, node: fx.Node) -> Any:
    """The number of ``node``, where it is the sum or difference of a tensor and a size or an int of the caller's: so the rows
    between ``at[0]`` and ``at[0] + x.shape[1]`` are as many as ``x`` has.

    Raises:
        NotCovered: it is no such sum, or one of the tensors is written.
    """
    operands = node.args if node.target in (operator.add, operator.sub) else ()
    tensor, number = (n if isinstance(n, fx.Node) else None for n in operands) if operands else (None, None)
    value, other = (n and n.meta.get("example_value") for n in (tensor, number))
    if not isinstance(value, torch.Tensor) or value.dim() or not isinstance(other, torch.SymInt):
        raise NotCovered
    memories = {memory_of(value), memory_of(node.meta["example_value"])}
    if any(memory_of(target.meta.get("example_value")) in memories for _, target in table.writes()):
        raise NotCovered
    of_tensor = number_in(tx, tensor)
    if of_tensor is None:
        raise NotCovered
    return _applied(tx, node.target, of_tensor, _made(tx, GraphInt(number), {}))


def formed(tx: Any, *nodes: fx.Node, form: str) -> Any:
    """What ``form``, ``int({})`` or ``torch.equal({}, {})``, makes of ``nodes``; None where that is not known."""
    if any(node.graph is not tx.output.graph for node in nodes):
        return None
    expression = expression_of(Table.of(tx.output.graph), *nodes, form=form)
    with contextlib.suppress(NotCovered):
        return None if expression is None else expression_variable(tx, expression)
    return None


def number_or_itself(tx: Any, variable: Any) -> Any:
    """The number that ``variable`` holds, if it is a tensor of which that is known; else ``variable``, realized."""
    variable = realized(variable)
    is_tensor = isinstance(variable, TensorVariable) and not isinstance(variable, SymNodeVariable)
    number = number_in(tx, variable.as_proxy().node) if is_tensor else None
    return variable if number is None else number


def numbers_in(tx: Any, node: fx.Node) -> Any:
    """All numbers that the tensor ``node`` holds, as `tolist` gives them, in constants and SymInt variables.

    None where the table does not know all of them.
    """
    if node.graph is not tx.output.graph:
        return None
    fix_numbers(tx, node)
    array = Table.of(tx.output.graph).array(node)
    if array is None or any(map(_rests_on_truths, array.flat)):
        with contextlib.suppress(NotCovered):
            return _numbers_by_expression(tx, node)
    if array is not None:
        with contextlib.suppress(NotCovered):
            return _nested(functools.partial(_variable, tx), array.tolist())
    return None


def _numbers_by_expression(tx: Any, node: fx.Node) -> Any:
    shape = shape_of(node)
    expression = expression_of(Table.of(tx.output.graph), node)
    if expression is None or not all(isinstance(s, int) for s in shape) or not 0 < math.prod(shape) <= MAX_EXPRESSIONS:
        raise NotCovered
    places = np.arange(math.prod(shape)).reshape(shape).tolist()
    return _nested(lambda place: expression_variable(tx, expression.element(place)), places)


def _nested(variable: Callable[[Any], Any], part: Any) -> Any:
    if isinstance(part, list):
        return ListVariable([_nested(variable, p) for p in part], mutation_type=ValueMutationNew())
    return variable(part)


def _variable(tx: Any, entry: Entry | None) -> Any:
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
    return functools.reduce(functools.partial(_applied, tx, _OPERATORS.get(entry.fn, entry.fn)), args[1:], args[0])


def _as_number(variable: Any) -> Any:
    """``variable``, or 1 or 0 for a truth value, which arithmetic on symbols does not take. One that moves is guarded."""
    value = plain_number(variable)
    return ConstantVariable.create(int(bool(value))) if isinstance(value, (bool, torch.SymBool)) else variable


def _applied(tx: Any, fn: Callable[..., Any], *args: Any) -> Any:
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


def known_truth(tx: Any, variable: Any) -> Any:
    """``variable``, or its outcome if it is a truth value that moves, where a guard is to hold it."""
    truth = realized(variable)
    moves = isinstance(truth, SymNodeVariable) and isinstance(truth.sym_num, torch.SymBool)
    return branch_outcome(tx, truth) if moves and not free_unbacked_symbols(truth.sym_num) else variable


def branch_outcome(tx: Any, value: Any) -> Any:
    """The outcome of a branch on the number ``value``, as a constant; the condition becomes a guard."""
    if value.is_python_constant():
        return ConstantVariable.create(bool(value.as_python_constant()))
    frame = tx.frame_summary()
    Table.of(tx.output.graph).predicates.append((str(value.sym_num), f"{frame.filename}:{frame.lineno}"))
    return ConstantVariable.create(bool(value.sym_num))
