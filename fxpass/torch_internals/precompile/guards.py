"""Guards that go into torch's precompile cache with a model that kvfix has compiled.

A guard that can only hold in this process is replaced by one that holds in others too; where there is none, the model is not
cached. The loading process builds the guards from fake tensors, which hold no numbers, so the contents of an index tensor are
pickled with it. For other backends nothing changes.
"""

from __future__ import annotations

import enum
import pickle
import types
from collections.abc import Callable
from typing import Any

import torch

from fxpass import reasons
from fxpass.errors import warn
from fxpass.index_tensors import mirror
from fxpass.torch_internals.dynamo.frames.compilation import Compilation, current_compilation
from fxpass.torch_internals.dynamo.guards.sources import NameSource, full_name
from fxpass.torch_internals.dynamo.names import GuardBuilder, config
from fxpass.torch_internals.patches import patch


def warn_not_cached(error: Exception) -> str:
    """Warn that a graph is not cached because of ``error``; gives the reason."""
    reason = f"{type(error).__name__}: {error}"
    warn(reasons.NOT_KEPT, error=reason)
    return reason


def install() -> None:
    """Let the guards of real models be cached."""
    patch("torch._dynamo.guards.GuardsStatePickler.reducer_override", _reduce)
    patch("torch._dynamo.guards.pickle_guards_state", _pickle_guards)
    patch("torch._dynamo.guards.CheckFunctionManager.__init__", _make_guards)


def _reduce(stock: Any, self: Any, obj: Any) -> Any:
    """Pickle descriptors in the dicts of classes too, and index tensors with their contents."""
    if current_compilation() is None:
        return stock(self, obj)
    if isinstance(obj, (staticmethod, classmethod)):
        return type(obj), (obj.__func__,)
    if isinstance(obj, property):
        return property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)
    reduced = stock(self, obj)
    known = mirror.known_values(obj) if isinstance(obj, torch.Tensor) and isinstance(reduced, tuple) else None
    return reduced if known is None else (_index, (known, *reduced))


def _index(values: tuple[int, ...], make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    tensor = make(*args)
    if isinstance(tensor, torch.Tensor):
        mirror.remember_contents(tensor, values)
    return tensor


def _make_guards(stock: Any, self: Any, code: Any, graph: Any, entries: Any = None, fail_fn: Any = None,
                 filter_fn: Any = None, **kwargs: Any) -> None:  # fmt: skip
    """Replace guards on the identity of an object, which another process cannot know; torch would drop them.

        self.act = torch.sin, self.kind = Kind.A        guarded by their full names
        any other object, a lambda                      the model is not cached

    Functions and classes of a module need none: the cache compares their source.
    """
    current = current_compilation()
    if current is None or not config.caching_precompile:
        return stock(self, code, graph, entries, fail_fn, filter_fn, **kwargs)

    def filtered(found: Any) -> Any:
        for entry in found:
            if not _BY_IDENTITY.isdisjoint((entry.guard_type, *entry.derived_guard_types)):
                _guard_by_name(entry, current)
        return [True] * len(found) if filter_fn is None else filter_fn(found)

    stock(self, code, graph, entries, fail_fn, filtered, **kwargs)


_BY_IDENTITY = {"ID_MATCH", "CLOSURE_MATCH", "FUNCTION_MATCH", "CLASS_MATCH", "BUILTIN_MATCH"}


_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, enum.Enum)


def _guard_by_name(entry: Any, current: Compilation) -> None:
    value, guard = entry.value, entry.orig_guard
    if entry.is_global or "type(" in entry.name:
        return
    if isinstance(value, _NAMED) and "<" not in full_name(value):
        guard.originating_source = NameSource(guard.originating_source)
        guard.create_fn = GuardBuilder.EQUALS_MATCH
        guard.guard_types = guard.code_list = guard.obj_weakref = guard.guarded_class_weakref = guard._hash = None
        object.__setattr__(entry, "guard_type", "EQUALS_MATCH")
        object.__setattr__(entry, "derived_guard_types", ())
    elif value is not None and not isinstance(value, (types.MethodType, types.ModuleType, types.CodeType)):
        current.process_bound = f"{entry.name} is guarded on by identity"


def _pickle_guards(stock: Any, state: Any, builder: Any) -> bytes:
    """Pickle the guards; where that is impossible, pickle an object that fails when it is loaded, with the reason.

    Not all releases of torch survive an error here.
    """
    current = current_compilation()
    if current is None:
        return stock(state, builder)
    try:
        if current.process_bound:
            raise ValueError(current.process_bound)
        for guard in state.output_graph.guards:
            if "___unnamed_scope" in guard.name:
                raise ValueError(f"a guard on a function without a module holds in one process only: {guard.name}")
        return stock(state, builder)
    except Exception as error:
        return pickle.dumps(_UncachedGuards(warn_not_cached(error)))


class _UncachedGuards:
    """Stands for guards that could not be pickled. Unpickling it raises an error with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __reduce__(self) -> Any:
        return _refuse, (self.reason,)


def _refuse(reason: str) -> None:
    raise RuntimeError(f"its guards were not kept: {reason}")
