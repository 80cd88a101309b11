"""Numbers that may be symbolic: compared without adding a guard, or with one, and as they are printed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.symbols import free_symbols, statically_known_true


@dataclasses.dataclass(frozen=True, eq=False)
class Derived:
    """The number ``fn(*args)`` that analysis has worked out: ``value``, which no node of the graph gives.

    ``place`` is the node before which it can be computed.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    value: Any
    place: fx.Node


def derived(fn: Callable[..., Any], args: tuple[Any, ...], place: fx.Node) -> Any:
    """The number ``fn(*args)`` of numbers: an int where it is one, else to be computed before ``place``."""
    value = fn(*(number(a) for a in args))
    expression = to_expr(value)
    is_int = isinstance(value, int) or getattr(expression, "is_Integer", False)
    return int(expression) if is_int else Derived(fn, args, value, place)


def number(value: Any) -> Any:
    """The int, float or SymInt that ``value`` stands for: a graph argument, or a number derived from some."""
    if isinstance(value, Derived):
        return value.value
    return value.meta["val"] if isinstance(value, fx.Node) else value


def equal(a: Any, b: Any) -> bool:
    """Whether two graph arguments (numbers or nodes) are known to be equal, without adding a guard."""
    a, b = number(a), number(b)
    return bool(to_expr(a) == to_expr(b)) or known(a == b)


def known(condition: Any) -> bool:
    """Whether ``condition`` holds whatever the symbols stand for."""
    return bool(statically_known_true(condition))


def guarded(condition: Any) -> bool:
    """Whether ``condition`` holds, on every call: known, or true now and guarded from here on.

    Tensor-indexed writes and reads lose the bounds that slices had; this keeps them, as Dynamo's own guards.
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
    """Within the block, `guarded` adds no guard: what it was told to hold is gathered in the list, for `guarded` to be asked
    again of once it is certain to be needed."""
    _supposed.append([])
    try:
        yield _supposed[-1]
    finally:
        _supposed.pop()


def symbols(value: Any) -> set[Any]:
    """The symbols in a number, or in the sizes, strides and offset of a tensor."""
    if isinstance(value, torch.Tensor):
        return free_symbols([*value.shape, *value.stride(), value.storage_offset()])
    return free_symbols(value) if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)) else set()


def to_expr(number: Any) -> Any:
    """``number``, a symbolic one as its expression: to compare these adds no guard."""
    return number.node.expr if isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)) else number


def layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The sizes, strides and offset of ``tensor``, `to_expr`."""
    return tuple(to_expr(n) for n in (*tensor.shape, *tensor.stride(), tensor.storage_offset()))


def fixed(size: Any) -> int | None:
    """``size`` as an int if it is one, or if the guards say so."""
    if isinstance(size, int):
        return size
    hint = size.node.hint
    return hint if hint is not None and equal(size, hint) else None


def hint(number: Any) -> Any:
    """``number``, a symbolic one as what it stands for now: nothing is guarded."""
    return number.node.hint if isinstance(number, torch.SymInt) else number


def expression_text(value: Any) -> str:
    """``value`` as the report prints it: ``s0 + 1``."""
    value = number(value)
    return str(value.node.expr) if isinstance(value, torch.SymInt) else str(value)
