"""The arithmetic on numbers that has an exact counterpart on 0-d tensors.

    end = ceil((s0 + 1) / 4) * 4          ->          end_t = mul(to(ceil(div(to(add(s0_t, 1), f64), 4.0)), i64), 4)

Integers are int64. Floats are float64, as Python's are, so that they round alike, also on the way back to an integer. An
operator that is not in the table, or may round otherwise (`log2`, a power with a fraction), has no counterpart.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import Refusal
from fxpass.graph.numbers import Derived, fits_int64, number

from .positions import ITEM, Positions

aten = torch.ops.aten

COMPARISONS: dict[Any, Any] = {
    getattr(operator, name): getattr(aten, name).Tensor for name in ("lt", "le", "gt", "ge", "eq", "ne")
}
INTEGERS: dict[Any, Any] = {
    operator.floordiv: aten.floor_divide.default,
    operator.mod: aten.remainder.Tensor,
    operator.pow: aten.pow.Tensor_Tensor,
    operator.and_: aten.bitwise_and.Tensor,
    operator.or_: aten.bitwise_or.Tensor,
    operator.xor: aten.bitwise_xor.Tensor,
    operator.lshift: aten.bitwise_left_shift.Tensor,
    operator.rshift: aten.bitwise_right_shift.Tensor,
}
_BITS = {operator.and_, operator.or_, operator.xor}
"""Their result fits in 64 bits if their operands do."""
ROUNDING: dict[Any, Any] = {
    math.ceil: aten.ceil.default,
    math.floor: aten.floor.default,
    math.trunc: aten.trunc.default,
    builtins.round: aten.round.default,
    torch.sym_int: aten.trunc.default,
}
FLOATS: dict[Any, Any] = {
    operator.truediv: aten.div.Tensor,
    getattr(torch, "_sym_sqrt", None): aten.sqrt.default,
    torch.sym_float: aten.alias.default,
}
ANY: dict[Any, Any] = {
    operator.add: aten.add.Tensor,
    operator.sub: aten.sub.Tensor,
    operator.mul: aten.mul.Tensor,
    operator.neg: aten.neg.default,
    operator.abs: aten.abs.default,
    builtins.abs: aten.abs.default,
    torch.sym_max: aten.maximum.default,
    torch.sym_min: aten.minimum.default,
    torch.sym_not: aten.logical_not.default,
}
TAKE_NUMBERS = {operator.add, operator.sub, operator.mul, operator.neg}
"""The operators whose counterpart takes a plain integer beside a tensor."""

TENSOR_FORMS = COMPARISONS | INTEGERS | ROUNDING | FLOATS | ANY
SUM = getattr(torch, "sym_sum", None)


def is_float(value: Any) -> bool:
    """Whether the number ``value`` is a float. It may be a node or a `Derived`."""
    return isinstance(number(value), (float, torch.SymFloat))


def call_of(value: fx.Node | Derived) -> tuple[Callable[..., Any] | str, tuple[Any, ...]]:
    """The function that computes the number ``value``, and its arguments."""
    return (value.fn, value.args) if isinstance(value, Derived) else (value.target, value.args)


def inputs_of(value: fx.Node | Derived) -> list[Any]:
    """The arguments that the number ``value`` is computed from."""
    return value.all_input_nodes if isinstance(value, fx.Node) else list(value.args)


def is_leaf(value: fx.Node | Derived, positions: Positions) -> bool:
    """Whether ``value`` is not computed from other numbers: it is an input, the size of a tensor, or read from a tensor."""
    target, _ = call_of(value)
    return value not in positions or target in ITEM or target is aten.sym_size.int or (
        isinstance(value, fx.Node) and value.op == "placeholder"
    )  # fmt: skip


def check(value: Any, positions: Positions, passed: Set[Any] = frozenset()) -> Set[Any]:
    """Check that the number ``value`` can be computed on tensors. Returns the numbers that have been checked: ``passed``, which
    are not looked at again, and those that it is computed from.

    Raises:
        Refusal: an operator that it is computed by has no exact counterpart, or may give more than 64 bits.
    """
    seen: set[Any] = set()
    made: list[Any] = []
    todo = [value]
    while todo:
        value = positions.resolve(todo.pop())
        if not isinstance(value, (fx.Node, Derived)) or value in passed or value in seen or is_leaf(value, positions):
            continue
        seen.add(value)
        target, args = call_of(value)
        terms = list(args[0]) if target is SUM else list(args)
        if not _is_exact(target, terms) or (isinstance(value, fx.Node) and value.kwargs):
            name = getattr(target, "__name__", target)
            raise Refusal(reasons.NO_TWIN, op=name)
        todo += terms
        if target not in _BITS:
            made.append(value)
    if not all(fits_int64(number(value)) for value in made):
        raise Refusal(reasons.NO_TWIN, op="numbers that may need more than 64 bits")
    return passed | seen


def _is_exact(target: Any, args: list[Any]) -> bool:
    if target in ROUNDING:
        return len(args) == 1 or args[1:] == [None]
    if target is operator.pow:
        return not is_float(args[0]) and isinstance(args[1], int) and args[1] >= 0
    if target in INTEGERS:
        return not any(is_float(a) for a in args)
    return target in TENSOR_FORMS or (target is SUM and SUM is not None)
