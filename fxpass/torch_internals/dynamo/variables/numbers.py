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
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from fxpass.graph.schemas import memory_of
from fxpass.index_tensors.arithmetic import NotCovered, is_truth
from fxpass.index_tensors.contents import Arith, Entry, GraphInt, in_order
from fxpass.index_tensors.expressions import expression_of
from fxpass.index_tensors.functions import total
from fxpass.index_tensors.small_tensors import shape_of
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.names import (
    ConstantVariable,
    ListVariable,
    SymNodeVariable,
    TensorVariable,
    ValueMutationNew,
)
from fxpass.torch_internals.dynamo.sizes.fixed import fix_numbers, has_symbolic_size
from fxpass.torch_internals.symbols import free_unbacked_symbols

from .entry_variables import applied, variable_of
from .guarded_numbers import expression_variable
from .realized import realized

MAX_EXPRESSIONS = 16
"""Of a tensor that no rule covers, with more elements than this, the numbers are not followed."""


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

    ways: list[Callable[[], Any]] = [by_operators, functools.partial(variable_of, tx, entry)]
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
    return applied(tx, node.target, of_tensor, variable_of(tx, GraphInt(number)))


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
            return _nested(functools.partial(variable_of, tx), array.tolist())
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
