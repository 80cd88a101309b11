"""Texts that numbers are put into, made when somebody looks at them.

    note = f"step {p}"          stock: p is a constant of the graph         kvfix: it is one where `note` is used
    note = f"{p:03d}"           stock: an error where it is used            kvfix: the text
    note = "step %d" % p        stock: the whole function runs in eager     kvfix: as ``f"step {p:d}"``
    note = str(p)               stock: graph break                          kvfix: as ``f"{p}"``
    note = format(p, "03d")     stock: "3"                                  kvfix: "003"
    int(f"{p}")                 stock: p                                    kvfix: p

Dynamo waits so with ``f"{p}"`` alone, and hands the number on as a text, which a format for numbers does not take. On torch
2.13, it takes the text of a number that the frame is given for the number itself.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any

import torch

from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import (
    ConstantVariable,
    LazySymNodeFormatString,
    LazyVariableTracker,
    SymNodeVariable,
    TupleVariable,
)
from fxpass.torch_internals.dynamo.variables.realized import is_text, realized
from fxpass.torch_internals.patches import patch

from .identity import among

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
        value = _known(self.number)
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
        return self.text % tuple(map(_known, self.values))


class _Text(LazyVariableTracker):  # type: ignore[misc]
    """A text that is made when somebody looks at it. Dynamo of torch 2.11 looks at what it passes to a function, to see whether
    it is a module, and a text is none."""

    @classmethod
    def of(cls, made: Any) -> _Text:
        """The text of which ``made`` is what Dynamo asks when it is looked at."""
        text: _Text = LazyVariableTracker.create(made, None)
        text.__class__ = cls
        return text

    def lazy_isinstance(self, cls: type) -> bool:
        return issubclass(ConstantVariable, cls) and bool(super().lazy_isinstance(cls))


_WRITTEN = {str: "", repr: "", bin: "#b", oct: "#o", hex: "#x"}
"""The format in which a function of Python writes an int."""
_MAKERS = [operator.mod, operator.add, operator.iadd, format, *_WRITTEN]


def _call_builtin(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    made = None if kwargs or not args or current_compilation() is None else _made(self.fn, args)
    if made is not None:
        return _Text.of(made)
    if self.fn in (int, float) and len(args) == 1 and (number := _number_read(args[0])) is not None:
        args = [number]
    return stock(self, tx, args, kwargs)


def _made(fn: Any, args: Sequence[Any]) -> Any:
    """The text that ``fn(*args)`` is; None if it is none that a number is put into, or Dynamo may make it."""
    if not among(fn, _MAKERS):
        return None  # of a list whose length is asked for, nothing else is
    first = args[0] if _waits(args[0]) else realized(args[0])
    if fn is operator.mod and not _waits(first) and is_text(first):
        values = realized(args[1])
        each = [*map(realized, values.items)] if isinstance(values, TupleVariable) else [values]
        moves = any(isinstance(v, SymNodeVariable) for v in each)
        return _Filled(first.as_python_constant(), each) if moves and _fit(first.as_python_constant(), each) else None
    if fn in (operator.add, operator.iadd) and any(map(_waits, args)):
        return _Joined(args) if all(_waits(part) or is_text(part) for part in args) else None
    if fn is format and (_waits(first) or isinstance(first, SymNodeVariable) or _is_literal(first)):
        return _Formatted(first, args[1].as_python_constant() if len(args) > 1 else "", False)
    if among(fn, _WRITTEN) and not _waits(first) and _is_number(first, is_int=bool(_WRITTEN[fn])):
        return _Formatted(first, _WRITTEN[fn], False)
    return None


def _is_literal(variable: Any) -> bool:
    return variable.is_python_constant() and isinstance(variable.as_python_constant(), (int, float, str))


def _is_number(variable: Any, is_int: bool) -> bool:
    """Whether ``variable`` is a number that moves, or with ``is_int`` any int."""
    if isinstance(variable, SymNodeVariable):
        return not (is_int and isinstance(variable.sym_num, torch.SymFloat))
    return is_int and variable.is_python_constant() and isinstance(variable.as_python_constant(), int)


def _known(value: Any) -> Any:
    """The constant that ``value`` is; a number that moves becomes one."""
    return value.evaluate_expr() if isinstance(value, SymNodeVariable) else value.as_python_constant()


def _number_read(text: Any) -> Any:
    """The int of which ``text`` has been made, if it is written in full in decimals; else None."""
    made = text.original_value() if _waits(text) else None
    if not isinstance(made, _Formatted) or not isinstance(getattr(made.number, "sym_num", None), torch.SymInt):
        return None
    return made.number if re.fullmatch("" if made.is_converted else "0?[0-9]*d?", made.spec) else None


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
    self.push(_Text.of(_Formatted(number, written, conversion > 0)))
    return None


def build_string(stock: Any, self: Any, inst: Any) -> Any:
    """The hook on the instruction that joins texts."""
    parts = self.stack[len(self.stack) - inst.arg :]
    if current_compilation() is None or not any(map(_waits, parts)):
        return stock(self, inst)
    if not all(_waits(part) or part.is_python_constant() for part in parts):
        return stock(self, inst)
    self.push(_Text.of(_Joined(self.popn(inst.arg))))
    return None


def _waits(part: Any) -> bool:
    """Whether ``part`` is a text that Dynamo has not made yet."""
    if type(part) not in (LazyVariableTracker, _Text) or part.is_realized():
        return False
    return issubclass(part.peek_type(), LazySymNodeFormatString)
