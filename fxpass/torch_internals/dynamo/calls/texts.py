"""Texts that numbers are put into, made when somebody looks at them.

    note = f"step {p}"          stock: p is a constant of the graph         kvfix: it is one where `note` is used
    note = f"{p:03d}"           stock: an error where it is used            kvfix: the text
    note = "step %d" % p        stock: the whole function runs in eager     kvfix: as ``f"step {p:d}"``

Dynamo waits so with ``f"{p}"`` alone, and hands the number on as a text, which a format for numbers does not take. On torch
2.13, it takes the text of a number that the frame is given for the number itself.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import (
    LazySymNodeFormatString,
    LazyVariableTracker,
    SymNodeVariable,
    TupleVariable,
)
from fxpass.torch_internals.dynamo.variables.realized import is_text, realized
from fxpass.torch_internals.patches import patch

_AS_IT_IS = (0, 1)
"""The conversions of a text that leave it as it is: none, and ``!s``."""


def install() -> None:
    """Install the hooks on numbers, which act while a frame is compiled for kvfix."""
    patch("torch._dynamo.symbolic_convert.InstructionTranslatorBase._format_value", _format_value)
    patch("torch._dynamo.variables.BuiltinVariable.call_function", _call_builtin)


class _Formatted(LazySymNodeFormatString):  # type: ignore[misc]
    """A number in a format for numbers, or for texts where it is converted (``!r``)."""

    def __init__(self, number: Any, spec: str, is_converted: bool) -> None:
        self.number, self.spec, self.is_converted = number, spec, is_converted

    def __repr__(self) -> str:
        value = self.number.evaluate_expr()
        return format(str(value) if self.is_converted else value, self.spec)


class _Joined(LazySymNodeFormatString):  # type: ignore[misc]
    """Texts one after the other."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts

    def __repr__(self) -> str:
        return "".join(part.as_python_constant() for part in self.parts)


class _Filled(LazySymNodeFormatString):  # type: ignore[misc]
    """A text with the places of ``values``, and what is put there."""

    def __init__(self, text: str, values: Sequence[Any]) -> None:
        self.text, self.values = text, values

    def __repr__(self) -> str:
        known = (v.evaluate_expr() if isinstance(v, SymNodeVariable) else v.as_python_constant() for v in self.values)
        return self.text % tuple(known)


def _call_builtin(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    acts = self.fn is operator.mod and current_compilation() is not None
    if acts and not _waits(args[0]) and is_text(args[0]):
        values = realized(args[1])
        each = [*map(realized, values.items)] if isinstance(values, TupleVariable) else [values]
        if any(isinstance(v, SymNodeVariable) for v in each) and _fit(args[0].as_python_constant(), each):
            return LazyVariableTracker.create(_Filled(args[0].as_python_constant(), each), None)
    return stock(self, tx, args, kwargs)


def _fit(text: str, each: Sequence[Any]) -> bool:
    """Whether the values in ``each`` will be known, and ``text`` has places for them. If not, Python raises the error."""
    if not all(isinstance(v, SymNodeVariable) or v.is_python_constant() for v in each):
        return False
    try:
        text % tuple(1 if isinstance(v, SymNodeVariable) else v.as_python_constant() for v in each)
    except (TypeError, ValueError):
        return False
    return True


def _format_value(stock: Any, self: Any, spec: Any, flags: int) -> Any:
    written, conversion, value = spec.as_python_constant(), flags & 3, self.stack[-1]
    if current_compilation() is None:
        return stock(self, spec, flags)
    if _waits(value):
        return stock(self, spec, flags) if written or conversion not in _AS_IT_IS else None
    number = realized(value)
    if not isinstance(number, SymNodeVariable):
        return stock(self, spec, flags)
    self.pop()
    self.push(LazyVariableTracker.create(_Formatted(number, written, conversion > 0), None))
    return None


def build_string(stock: Any, self: Any, inst: Any) -> Any:
    """The hook on the instruction that joins texts."""
    parts = self.stack[len(self.stack) - inst.arg :]
    if current_compilation() is None or not any(map(_waits, parts)):
        return stock(self, inst)
    if not all(_waits(part) or part.is_python_constant() for part in parts):
        return stock(self, inst)
    self.push(LazyVariableTracker.create(_Joined(self.popn(inst.arg)), None))
    return None


def _waits(part: Any) -> bool:
    """Whether ``part`` is a text that Dynamo has not made yet."""
    if type(part) is not LazyVariableTracker or part.is_realized():
        return False
    return issubclass(part.peek_type(), LazySymNodeFormatString)
