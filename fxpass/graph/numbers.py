"""Numbers that may be symbolic: what they are, how they compare with and without a guard, and how they are printed."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.symbols import free_symbols, range_of, statically_known_true


@dataclasses.dataclass(frozen=True, eq=False)
class Derived:
    """A number that analysis has derived and no node of the graph computes: ``fn(*args)``, which is ``value``.

    ``place`` is the node before which it can be computed.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    value: Any
    place: fx.Node


def derived(fn: Callable[..., Any], args: tuple[Any, ...], place: fx.Node) -> Any:
    """The number ``fn(*args)``: an int if it is a constant, otherwise a number to be computed before ``place``."""
    value = fn(*(number(a) for a in args))
    expression = to_expr(value)
    is_int = isinstance(value, int) or getattr(expression, "is_Integer", False)
    return int(expression) if is_int else Derived(fn, args, value, place)


def derivation(value: Any) -> list[Derived]:
    """``value`` and the numbers that it is derived from, where these are derived: each once, operands before results."""
    found: dict[Derived, None] = {}
    waiting = [value] if isinstance(value, Derived) else []
    while waiting:
        missing = [arg for arg in waiting[-1].args if isinstance(arg, Derived) and arg not in found]
        if missing:
            waiting += missing
        else:
            found[waiting.pop()] = None
    return list(found)


def number(value: Any) -> Any:
    """The int, float, SymInt or SymFloat that ``value`` stands for, which may be a node or a `Derived`."""
    if isinstance(value, Derived):
        return value.value
    return value.meta["val"] if isinstance(value, fx.Node) else value


def equal(a: Any, b: Any) -> bool:
    """Whether two numbers are known to be equal; no guard is added."""
    a, b = number(a), number(b)
    return bool(to_expr(a) == to_expr(b)) or known(a == b)


def known(condition: Any) -> bool:
    """Whether ``condition`` is known to hold for all values of its symbols; no guard is added."""
    return bool(statically_known_true(condition))


def guarded(condition: Any) -> bool:
    """Whether ``condition`` holds on every call: it is known to hold, or it holds now and is guarded from here on.

    A slice checks its bounds. The reads and writes by index that replace it do not; the guards do it instead.
    """
    if isinstance(condition, bool) or known(condition):
        return bool(condition)
    if not condition.node.hint:
        return False
    if not _supposed:
        return bool(condition)
    _supposed[-1].append(condition)
    return True


_supposed: list[list[Any]] = []


@contextlib.contextmanager
def supposing() -> Iterator[list[Any]]:
    """Within the block `guarded` adds no guards. The list gathers the conditions, to be guarded later if they are needed."""
    _supposed.append([])
    try:
        yield _supposed[-1]
    finally:
        _supposed.pop()


def ceiling(value: int) -> int:
    """The bound below which a number that is ``value`` now is guarded to stay: the first of `CEILINGS` above its magnitude."""
    return next(end for end in CEILINGS if abs(value) < end or end == CEILINGS[-1])


def fits_int64(number: Any) -> bool:
    """Whether ``number`` is known to stay within 64 bits: Python's ints are unbounded, and those of tensors wrap around.

    Each symbol is taken to stay below its `ceiling`: sizes do, and all others are guarded to.
    """
    if isinstance(number, torch.SymInt):
        return all(-CEILINGS[-1] <= bound < CEILINGS[-1] for bound in range_of(number, ceiling))
    return not isinstance(number, int) or -CEILINGS[-1] <= number < CEILINGS[-1]


CEILINGS = (2**21, 2**31, 2**63)
"""Below the first, a position times the number and size of the heads fits into 64 bits; below the second, its square does."""


def is_nan(number: Any) -> bool:
    """Whether ``number`` is a float that compares with no number. A symbolic one is none."""
    return isinstance(number, float) and math.isnan(number)


def symbols(value: Any) -> set[Any]:
    """The symbols in a number, or in the sizes, strides and offset of a tensor."""
    if isinstance(value, torch.Tensor):
        return free_symbols([*value.shape, *value.stride(), value.storage_offset()])
    return free_symbols(value) if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else set()


def to_expr(number: Any) -> Any:
    """``number`` itself, or its expression if it is symbolic. Comparing expressions adds no guard."""
    return number.node.expr if isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)) else number


def layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The sizes, strides and storage offset of ``tensor``, each `to_expr`."""
    return tuple(to_expr(n) for n in (*tensor.shape, *tensor.stride(), tensor.storage_offset()))


def fixed(size: Any) -> int | None:
    """``size`` as an int; None if it is symbolic and the guards do not fix it."""
    if isinstance(size, int):
        return size
    hint = size.node.hint
    return hint if hint is not None and equal(size, hint) else None


def hint(number: Any) -> Any:
    """``number``, or the hint of a symbolic one. No guard is added."""
    return number.node.hint if isinstance(number, torch.SymInt) else number


def size_in_bytes(tensor: torch.Tensor) -> int:
    """The bytes of the elements of ``tensor``, by the hints of its sizes; 0 where a size has no hint."""
    return math.prod(int(hint(size) or 0) for size in tensor.shape) * tensor.element_size()


def input_sizes(graph: fx.Graph) -> Iterator[tuple[fx.Node, int, Any]]:
    """The symbolic sizes of the inputs of ``graph``, each with the input and the dim."""
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            yield from ((node, dim, size) for dim, size in enumerate(value.shape) if isinstance(size, torch.SymInt))
