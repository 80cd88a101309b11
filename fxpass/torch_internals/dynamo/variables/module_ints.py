"""Ints that belong to a module or are global: each is a constant until the same module is seen with another value.

    start = self.length                 stock: a constant with a guard, and a recompilation for each new value
    self.length += x.shape[1]           kvfix: a constant at first, a SymInt input once it has moved

The same holds for ints of objects and lists that a module holds. An int that differs from one module to another, such as a
number of heads, stays a constant. One that counts the modules, 0, 1, 2 and so on, is a SymInt input after the first few: it is
the place of what belongs to the module, ``caches[self.layer_idx]``. In a frame that makes strings of numbers, such as names,
``f"layer{self.layer_idx}"``, it stays a constant.

An int of the program's, which is a global, or an attribute of a class or a Python module that is one, has no owner: it is a
constant until the frame is seen with another value.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.frames.history import history_of
from fxpass.torch_internals.dynamo.guards.frame_values import NOTHING, value_at
from fxpass.torch_internals.dynamo.names import (
    ChainedSource,
    FrameStateSizeEntry,
    RestartAnalysis,
    SymNodeVariable,
    auto_dynamic,
    process_automatic_dynamic,
)
from fxpass.torch_internals.patches import patch

from .realized import is_text, realized

MAX_COUNTED = 3
"""For so many modules that are counted, graphs are made in which the number of the module is a constant."""
_first: weakref.WeakKeyDictionary[nn.Module, dict[str, int]] = weakref.WeakKeyDictionary()
_moved: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


def forget() -> None:
    """Forget the values that have been seen."""
    _first.clear()
    _moved.clear()


def has_moved(tx: Any, source: Any, value: int) -> bool:
    """Whether the int at ``source``, now ``value``, belongs to a module, or is a global, and has been seen to change there."""
    if source is None:
        return False
    if source.guard_source.name == "GLOBAL":
        entry = FrameStateSizeEntry.make_scalar(value)
        return process_automatic_dynamic(tx, source.name, entry).scalar is auto_dynamic
    if not source.guard_source.is_unspecialized_nn_module():
        return False
    owner = _owner(tx, source)
    if owner is None:
        return False
    if _first.setdefault(owner, {}).setdefault(source.name, value) != value:
        _moved.setdefault(owner, set()).add(source.name)
    values = history_of(tx.output.root_tx.f_code).of_modules.setdefault(source.name, set())
    values.add(value)
    if source.name in history_of(tx.output.root_tx.f_code).places:
        return True
    counts = _count(values) and not history_of(tx.output.root_tx.f_code).makes_texts
    return counts or source.name in _moved.get(owner, ())


def _count(values: set[int]) -> bool:
    return len(values) > MAX_COUNTED and values == set(range(len(values)))


def see_names(tx: Any, operands: Iterable[Any]) -> None:
    """Note that strings are made of ``operands``. One may be a number that counts modules.

    Raises:
        RestartAnalysis: Dynamo traces the frame again, with these numbers as constants.
    """
    values = [*map(realized, operands)]
    if current_compilation() is None or not any(isinstance(v, SymNodeVariable) for v in values):
        return
    seen = history_of(tx.output.root_tx.f_code)
    if not seen.makes_texts and any(map(_count, seen.of_modules.values())):
        seen.makes_texts = True
        tx.output.root_tx.speculation_log.clear()
        raise RestartAnalysis(restart_reason="kvfix: a name is made of a number")


def _format_value(stock: Any, self: Any, *args: Any) -> Any:
    see_names(self, self.stack[-1:])
    return stock(self, *args)


def _call_builtin(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    if self.fn in (str, repr, format, str.format) or self.fn is operator.mod and is_text(args[0]):
        see_names(tx, args)
    return stock(self, tx, args, kwargs)


def install() -> None:
    """Install the hooks, which act while a frame is compiled for kvfix."""
    patch("torch._dynamo.symbolic_convert.InstructionTranslatorBase._format_value", _format_value)
    patch("torch._dynamo.variables.BuiltinVariable.call_function", _call_builtin)


def is_single(tx: Any, source: Any) -> bool:
    """Whether the int at ``source`` belongs to a module, or is the caller's, and no list of modules holds others like it."""
    lists = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
    return not any(holder is NOTHING or isinstance(holder, lists) for holder in _holders(tx, source))


def _owner(tx: Any, source: Any) -> nn.Module | None:
    """The innermost module that ``source`` is reached through; None where Dynamo has no plain name for what lies between."""
    for holder in _holders(tx, source):
        if holder is NOTHING or isinstance(holder, nn.Module):
            return None if holder is NOTHING else holder
    return None


def _holders(tx: Any, source: Any) -> Iterator[Any]:
    """What ``source`` is reached through, from the inside out: of ``self.layers[1].length``, the layer, the list, ``self``."""
    while isinstance(source, ChainedSource):
        source = source.base
        yield value_at(tx, source)
