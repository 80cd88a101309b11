"""Numbers of our own in the environment of a graph that Dynamo has captured, and which conditions on them always hold.

    C       a number of ours, of which Dynamo knows nothing         s < C is known
    s + 1 <= C, 2 * s < C                                           asked about it: the first always holds, the second may not
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import sympy
import torch

from fxpass.torch_internals.dynamo.names import ConstantSource
from fxpass.torch_internals.symbols import DimDynamic, Max, Min


def number_of_ours(env: Any, name: str, value: int) -> tuple[Any, torch.SymInt]:
    """A new symbol of the environment ``env`` that stands for a number of ours, and the number, which is ``value`` now."""
    symbol = env.create_symbol(value, ConstantSource(name), dynamic_dim=DimDynamic.DYNAMIC)
    return symbol, env.create_symintnode(symbol, hint=value)


def taken_out(env: Any, symbols: Set[Any]) -> list[Any]:
    """Take the guards that mention one of ``symbols`` out of ``env``. Gives them."""
    asked = [g.expr for g in env.guards if symbols & g.expr.free_symbols]
    env.guards[:] = [g for g in env.guards if not symbols & g.expr.free_symbols]
    return asked


def count(name: str) -> Any:
    """A symbol for a number that is 0 at least."""
    return sympy.Symbol(name, integer=True, nonnegative=True)


def is_of_layout(condition: Any, window: Any, size: Any) -> bool:
    """Whether ``condition`` holds whenever ``window``, the size of a view of the first rows of an axis, is less than ``size``,
    that of the axis.

    Whether a window is the whole axis is asked to find out whether the view is contiguous. Code that is made for a view that is
    not contiguous goes by its strides, and is right for one that is.
    """
    return always_holds(condition, {window: size - 1 - count("room")}, {})


def from_the_least_on(env: Any, symbols: Iterable[Any]) -> dict[Any, Any]:
    """Each of ``symbols`` that is known to be 0 or more in ``env``, as the sum of its least value and a `count`."""
    least = {s: env.var_to_range[s].lower for s in symbols if s in env.var_to_range}
    return {s: count(str(s)) + low for s, low in least.items() if low.is_finite and low >= 0}


def always_holds(condition: Any, room: Mapping[Any, Any], counted: Mapping[Any, Any]) -> bool:
    """Whether the relation ``condition`` always holds, whichever of its operands each maximum and minimum in it is.

    ``room`` writes a symbol that is larger, or smaller, than others by means of these. ``counted`` writes each of these as its
    least value and a `count`.
    """
    if not isinstance(condition, sympy.core.relational.Relational):
        return bool(condition == sympy.true)
    chosen = next(iter(condition.atoms(Max, Min)), None)
    if chosen is not None:
        return all(always_holds(condition.xreplace({chosen: one}), room, counted) for one in chosen.args)
    left = sympy.expand((condition.lhs - condition.rhs).xreplace(room).xreplace(counted))
    signs = {sympy.Ne: left.is_nonzero, sympy.Lt: left.is_negative, sympy.Le: left.is_nonpositive,
             sympy.Gt: left.is_positive, sympy.Ge: left.is_nonnegative, sympy.Eq: left.is_zero}  # fmt: skip
    return bool(signs.get(type(condition), False))
