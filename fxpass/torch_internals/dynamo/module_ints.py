"""Ints that belong to a module: each is a constant until the same module is seen with another value.

    start = self.length                 stock: a constant with a guard, and a recompilation for each new value
    self.length += x.shape[1]           kvfix: a constant at first, a SymInt input once it has moved

The same holds for ints of objects and lists that a module holds. An int that differs from one module to another, such as a
number of heads, stays a constant. One that counts the modules, 0, 1, 2 and so on, is a SymInt input after the first few: it is
the place of what belongs to the module, ``caches[self.layer_idx]``.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from fxpass.torch_internals.dynamo.names import ChainedSource

from . import frames

MAX_COUNTED = 3
"""For so many modules that are counted, graphs are made in which the number of the module is a constant."""
_first: weakref.WeakKeyDictionary[nn.Module, dict[str, int]] = weakref.WeakKeyDictionary()
_moved: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


def forget() -> None:
    """Forget the values that have been seen."""
    _first.clear()
    _moved.clear()


def moves(tx: Any, source: Any, value: int) -> bool:
    """Whether the int at ``source``, now ``value``, belongs to a module and has been seen to change there."""
    if source is None or not source.guard_source.is_unspecialized_nn_module():
        return False
    owner = _owner(tx, source)
    if owner is None:
        return False
    if _first.setdefault(owner, {}).setdefault(source.name, value) != value:
        _moved.setdefault(owner, set()).add(source.name)
    values = frames.history_of(tx.output.root_tx.f_code).of_modules.setdefault(source.name, set())
    values.add(value)
    if source.name in frames.history_of(tx.output.root_tx.f_code).places:
        return True
    counts = len(values) > MAX_COUNTED and values == set(range(len(values)))
    return counts or source.name in _moved.get(owner, ())


def is_single(tx: Any, source: Any) -> bool:
    """Whether the int at ``source`` belongs to a module, or is the caller's, and no list of modules holds others like it."""
    scope = {"L": tx.output.root_tx.f_locals, "G": tx.output.root_tx.f_globals}
    while isinstance(source, ChainedSource):
        source = source.base
        try:
            if isinstance(eval(source.name, scope), (nn.ModuleList, nn.Sequential, nn.ModuleDict)):
                return False
        except Exception:  # a source without a plain expression
            return False
    return True


def _owner(tx: Any, source: Any) -> nn.Module | None:
    """The innermost module that ``source`` is reached through."""
    frame = tx.output.root_tx
    scope = {"L": frame.f_locals, "G": frame.f_globals}
    while isinstance(source, ChainedSource):
        source = source.base
        try:
            value = eval(source.name, scope)
        except Exception:  # a source without a plain expression: the owner cannot be found, and the int stays a constant
            return None
        if isinstance(value, nn.Module):
            return value
    return None
