"""Compiled in one process, used in the next: torch's precompile cache (``TORCH_CACHING_PRECOMPILE=1``).

Dynamo keeps guards and bytecode, and asks the backend for an artifact that makes the compiled function again:

    process 1    torch.compile(...); calls; torch.compiler.save_cache_artifacts()
    process 2    torch.compile(...); calls: nothing is traced

The guards are built anew from fake tensors, which hold no numbers: an index tensor brings along what the mirror knew of it.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import hashlib
import pathlib
import pickle
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo.guards as dynamo_guards
from torch import fx
from torch._C._dynamo.eval_frame import _reset_precompile_entries
from torch._dynamo import output_graph
from torch._dynamo.bytecode_transformation import unique_id
from torch._dynamo.guards import GuardBuilder
from torch._dynamo.output_graph import OutputGraph
from torch._dynamo.package import CompilePackage, _lookup_code
from torch._dynamo.precompile_context import BackendCacheArtifact, PrecompileContext
from torch._guards import CompileContext

from fxpass import collection
from fxpass.errors import KvfixWarning
from fxpass.options import Options

from . import mirror
from .source import NameSource, full_name
from .wrap import wrap

Make = Callable[[], Callable[..., Any]]
"""What makes a compiled function; can be pickled, with all that it holds."""


class Artifact(BackendCacheArtifact[Any]):
    """What makes a graph's compiled function again in another process: ``content`` is (`_version`, options, a `Make`), the
    last two pickled."""

    def after_deserialization(self) -> Callable[..., Any]:
        """The compiled function."""
        version, options, make = self.content
        if version != _version():
            raise RuntimeError("it is from another version of kvfix")
        if pickle.loads(options) != _asked:
            raise RuntimeError("it was compiled with another backend or other options")
        return pickle.loads(make)()


def is_wanted(gm: fx.GraphModule) -> bool:
    """Whether Dynamo keeps what is compiled for ``gm``."""
    return getattr(gm, "_backend_id", None) is not None


def made_by_torch(gm: fx.GraphModule) -> Make | None:
    """What AOTAutograd has kept for ``gm``, which `is_wanted`, if it has compiled it."""
    own = PrecompileContext.serialize_artifact_by_key(gm._backend_id)
    return None if own is None else own.after_deserialization


def keep(gm: fx.GraphModule, options: Options, make: Make) -> None:
    """Keep ``make`` for ``gm``'s compiled function."""
    PrecompileContext.record_artifact(Artifact(gm._backend_id, (_version(), pickle.dumps(options), pickle.dumps(make))))
    _kept.add(CompileContext.current_compile_id())


def not_kept(error: Exception) -> str:
    """Warn that a graph is not kept because of ``error``; returns the reason."""
    reason = f"{type(error).__name__}: {error}"
    warnings.warn(f"kvfix: a graph is not kept for other processes: {reason}", KvfixWarning, stacklevel=3)
    return reason


def ask(options: Options | None) -> None:
    """`torch.compile` is called with these options; None for another backend. What it loads must be from the same."""
    global _asked
    _asked = options


_asked: Options | None = None


_kept: set[Any] = set()
"""The compilations whose backend was kvfix."""


@functools.cache
def _version() -> str:
    """A hash of kvfix' own source: what another version has made may mean something else."""
    files = sorted(pathlib.Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def install() -> None:
    """Let the guards of real models be kept, and what cannot be used be compiled again."""
    wrap(dynamo_guards.GuardsStatePickler, "reducer_override", _reduce)
    wrap(dynamo_guards, "pickle_guards_state", _pickle_guards)
    wrap(dynamo_guards.CheckFunctionManager, "__init__", _make_guards)
    wrap(CompilePackage, "install", _use)
    if not hasattr(output_graph, "unique_id_unbound_in"):  # before torch 2.15
        OutputGraph.install_global = _install_global  # type: ignore[method-assign]


def _reduce(stock: Any, self: Any, obj: Any) -> Any:
    """Descriptors in the dicts of classes are pickled too, and index tensors with their numbers."""
    if isinstance(obj, (staticmethod, classmethod)):
        return type(obj), (obj.__func__,)
    if isinstance(obj, property):
        return property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)
    reduced = stock(self, obj)
    known = mirror.known(obj) if isinstance(obj, torch.Tensor) and isinstance(reduced, tuple) else None
    return reduced if known is None else (_index, (known, *reduced))


def _index(values: tuple[int, ...], make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    tensor = make(*args)
    if isinstance(tensor, torch.Tensor):
        mirror.describe(tensor, values)
    return tensor


def _make_guards(stock: Any, self: Any, code: Any, graph: Any, entries: Any = None, fail_fn: Any = None,
                 filter_fn: Any = None, **kwargs: Any) -> None:  # fmt: skip
    """torch drops guards on the identity of objects, which another process cannot know. Those that a model holds are data:

        self.act = torch.sin, self.kind = Kind.A        guarded on by their full names
        any other object, a lambda                      the model is not kept

    Functions and classes of modules are code, of which the cache compares the source.
    """
    if CompileContext.current_compile_id() not in _kept or not torch._dynamo.config.caching_precompile:
        return stock(self, code, graph, entries, fail_fn, filter_fn, **kwargs)

    def filtered(found: Any) -> Any:
        for entry in found:
            if not _BY_IDENTITY.isdisjoint((entry.guard_type, *entry.derived_guard_types)):
                _keep_data(entry)
        return [True] * len(found) if filter_fn is None else filter_fn(found)

    try:
        stock(self, code, graph, entries, fail_fn, filtered, **kwargs)
    finally:
        _kept.discard(CompileContext.current_compile_id())
        _lost.pop(CompileContext.current_compile_id(), None)


_BY_IDENTITY = {"ID_MATCH", "CLOSURE_MATCH", "FUNCTION_MATCH", "CLASS_MATCH", "BUILTIN_MATCH"}


_NAMED = (type, types.FunctionType, types.BuiltinFunctionType, enum.Enum)


def _keep_data(entry: Any) -> None:
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
        _lost[CompileContext.current_compile_id()] = f"{entry.name} is guarded on by identity"


_lost: dict[Any, str] = {}
"""Compilations that depend on an object of this process, and on which."""


def _pickle_guards(stock: Any, state: Any, builder: Any) -> bytes:
    """Guards that cannot be kept fail when they are read, and `_use` says why: not all releases survive it here."""
    compilation = CompileContext.current_compile_id()
    if compilation not in _kept:
        return stock(state, builder)
    try:
        if compilation in _lost:
            raise ValueError(_lost[compilation])
        for guard in state.output_graph.guards:
            if "___unnamed_scope" in guard.name:
                raise ValueError(f"a guard on a function without a module holds in one process only: {guard.name}")
        return stock(state, builder)
    except Exception as error:
        return pickle.dumps(_NotKept(not_kept(error)))


class _NotKept:
    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __reduce__(self) -> Any:
        return _refuse, (self.reason,)


def _refuse(reason: str) -> None:
    raise RuntimeError(f"its guards were not kept: {reason}")


@collection.at_rest()
def _use(stock: Any, package: CompilePackage, backends: Any) -> None:
    """What was kept, or, where that is not possible, nothing: the model is then traced as if nothing had been kept."""
    try:
        with torch.inference_mode(False):  # the guards' fake tensors have versions
            stock(package, backends)
    except Exception as error:
        if not any(isinstance(artifact, Artifact) for artifact in backends.values()):
            raise
        warnings.warn(
            f"kvfix: a precompiled model is not used but compiled again: {type(error).__name__}: {error}",
            KvfixWarning,
            stacklevel=2,
        )
        _forget(package)
        package._initialized, package._codes = False, {}
        package.initialize(package._innermost_fn)


def _forget(package: CompilePackage) -> None:
    """Take back what was loaded, for all functions, and what stands in a module under one name for several of them."""
    for code, entry in package._codes.items():
        with contextlib.suppress(Exception):  # nothing has been loaded for it
            _reset_precompile_entries(_lookup_code(entry) if entry.code_source else code)
    for module, names in package._installed_globals.items():
        package._installed_globals[module] = [n for n in dict.fromkeys(names) if n in module.__dict__]
    package.uninstall()


def _install_global(self: OutputGraph, prefix: str, value: Any) -> str:
    """Names start from zero in each process, and loaded guards have brought some along."""
    name = unique_id(prefix)
    while name in self.global_scope:
        name = unique_id(prefix)
    self.install_global_unsafe(name, value)
    return name
