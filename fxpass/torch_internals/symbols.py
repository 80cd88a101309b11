"""Private names of torch about symbolic numbers and the environment that guards on them, and what is asked of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy

from fxpass.torch_internals.contracts import internal

DimDynamic: Any = internal("torch.fx.experimental.symbolic_shapes.DimDynamic")
ShapeEnv: Any = internal("torch.fx.experimental.symbolic_shapes.ShapeEnv")
StatelessSymbolicContext: Any = internal("torch.fx.experimental.symbolic_shapes.StatelessSymbolicContext")
SYMPY_INTERP: Any = internal("torch.fx.experimental.symbolic_shapes.SYMPY_INTERP")
free_symbols: Any = internal("torch.fx.experimental.symbolic_shapes.free_symbols")
free_unbacked_symbols: Any = internal("torch.fx.experimental.symbolic_shapes.free_unbacked_symbols")
statically_known_true: Any = internal("torch.fx.experimental.symbolic_shapes.statically_known_true")
SymNode: Any = internal("torch.fx.experimental.sym_node.SymNode")
FloorDiv: Any = internal("torch.utils._sympy.functions.FloorDiv")
Max: Any = internal("torch.utils._sympy.functions.Max")
Min: Any = internal("torch.utils._sympy.functions.Min")
Mod: Any = internal("torch.utils._sympy.functions.Mod")
PythonMod: Any = internal("torch.utils._sympy.functions.PythonMod")
PythonPrinter: Any = internal("torch.utils._sympy.printers.PythonPrinter")
ValueRanges: Any = internal("torch.utils._sympy.value_ranges.ValueRanges")
bound_sympy: Any = internal("torch.utils._sympy.value_ranges.bound_sympy")

_UNBACKED = 2**63 - 2**32


def symbols_for(env: Any, known: dict[int, Any]) -> None:
    """From now on, let ``env`` take the symbols in ``known`` for numbers of these values, and new ones for all others."""
    env.val_to_var = dict(known)


def range_of(number: Any, ceiling: Callable[[int], int]) -> tuple[Any, Any]:
    """The least and the largest value of the SymInt ``number``. Each symbol stays below the ``ceiling`` of what it is now.
    A symbol without a value, as in an exported graph, stays in its own range, and so far below 2**63 that rows can be added."""
    env, ranges = number.node.shape_env, {}
    for symbol in number.node.expr.free_symbols:
        value, own = env.backed_var_to_val.get(symbol), env.var_to_range[symbol]
        end = _UNBACKED if value is None else ceiling(int(value))
        ranges[symbol] = ValueRanges(max(-end, own.lower), min(end - 1, own.upper))
    found = bound_sympy(_divided_by_more_than_zero(number.node.expr, ranges), ranges)
    return found.lower, found.upper


def _divided_by_more_than_zero(expr: Any, ranges: dict[Any, Any]) -> Any:
    """``expr`` with a symbol for each divisor that is known not to be negative. Its range, which is added to ``ranges``, is
    without zero, since there is no quotient then: ``n % capacity`` is no larger than the capacity."""
    if not expr.args:
        return expr
    args = [_divided_by_more_than_zero(arg, ranges) for arg in expr.args]
    if isinstance(expr, (FloorDiv, Mod, PythonMod)) and args[1].free_symbols:
        own = bound_sympy(args[1], ranges)
        if own.lower == 0 and own.upper > 0:
            args[1] = sympy.Dummy(integer=True, positive=True)
            ranges[args[1]] = ValueRanges(1, own.upper)
    return expr.func(*args)
