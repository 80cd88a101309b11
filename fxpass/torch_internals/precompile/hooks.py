"""Torch's precompile cache (``TORCH_CACHING_PRECOMPILE=1``): what one process has compiled, the next one uses.

    process 1    torch.compile(...); calls; torch.compiler.save_cache_artifacts()
    process 2    torch.compile(...); calls: nothing is traced

Dynamo caches guards (see `guards`) and bytecode. Of the backend it wants an artifact from which the compiled function can be
made again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import pathlib
import pickle
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import warn
from fxpass.options import Options
from fxpass.torch_internals import garbage_collection
from fxpass.torch_internals.contracts import TABLE, Feature
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.precompile.names import (
    BackendCacheArtifact,
    PrecompileContext,
    lookup_code,
    reset_precompile_entries,
    unique_id,
)

from . import guards
from .guards import warn_not_cached as warn_not_cached

Make = Callable[[], Callable[..., Any]]
"""A function without arguments that makes a compiled function. It can be pickled, with all that it holds."""


class Artifact(BackendCacheArtifact[Any]):
    """The artifact of one graph. Its ``content`` is (`_own_version`, options, a `Make`); the last two are pickled."""

    def after_deserialization(self) -> Callable[..., Any]:
        """The compiled function.

        Raises:
            RuntimeError: another version of kvfix has made the artifact, or other options were asked for.
        """
        version, options, make = self.content
        if version != _own_version():
            raise RuntimeError("it is from another version of kvfix")
        if pickle.loads(options) != _asked.get():
            raise RuntimeError("it was compiled with another backend or other options")
        return pickle.loads(make)()


def is_caching(gm: fx.GraphModule) -> bool:
    """Whether Dynamo caches what is compiled for its graph ``gm``."""
    return holds(Feature.PRECOMPILE) and current_compilation() is not None and getattr(gm, "_backend_id", None) is not None


def made_by_torch(gm: fx.GraphModule) -> Make | None:
    """What AOTAutograd has put into the cache for ``gm``; None if it has not compiled it. `is_caching` holds for ``gm``."""
    own = PrecompileContext.serialize_artifact_by_key(gm._backend_id)
    return None if own is None else own.after_deserialization


def put_artifact(gm: fx.GraphModule, options: Options, make: Make) -> None:
    """Put ``make`` into the cache, for the compiled function of ``gm`` under these ``options``."""
    PrecompileContext.record_artifact(Artifact(gm._backend_id, (_own_version(), pickle.dumps(options), pickle.dumps(make))))


_NAMES = "torch._dynamo.output_graph.OutputGraph.install_global"

_asked: ContextVar[Options | None] = ContextVar("_asked", default=None)
"""The options of the `torch.compile` that is being applied in this thread; None for another backend."""


@functools.cache
def _own_version() -> str:
    """A hash of the source of kvfix: an artifact of another version may mean something else."""
    return _version_of(pathlib.Path(__file__).parents[2])


def _version_of(package: pathlib.Path) -> str:
    """A hash of the files of ``package`` and of where they lie: what is pickled names the modules that it comes from."""
    version = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        text = file.read_bytes()
        version.update(f"{file.relative_to(package).as_posix()} {len(text)} ".encode() + text)
    return version.hexdigest()


def install(options_of: Callable[[Any], Options | None]) -> None:
    """Let torch load what was compiled with the same options, and compile anew what cannot be used."""
    guards.install()
    patch("torch._dynamo.eval_frame._TorchDynamoContext.__call__", functools.partial(_apply, options_of))
    patch("torch._dynamo.package.CompilePackage.install", _use)
    if TABLE[_NAMES].applies():
        patch(_NAMES, _install_global)


def _apply(options_of: Callable[[Any], Options | None], stock: Any, self: Any, fn: Any) -> Any:
    """Note the options while ``self``, made by `torch.compile`, is applied to ``fn``: torch loads from the cache then."""
    token = _asked.set(options_of(self.callback))
    try:
        return stock(self, fn)
    finally:
        _asked.reset(token)


def _use(stock: Any, package: Any, backends: Any) -> None:
    """Use what the cache holds; where that fails, use nothing of it, so that the model is traced as without a cache."""
    if not any(isinstance(artifact, Artifact) for artifact in backends.values()):
        return stock(package, backends)
    try:
        with garbage_collection.paused(), torch.inference_mode(False):  # the guards' fake tensors have versions
            stock(package, backends)
    except Exception as error:
        warn(reasons.NOT_USED, error=f"{type(error).__name__}: {error}")
        _forget(package)
        package._initialized, package._codes = False, {}
        package.initialize(package._innermost_fn)


def _forget(package: Any) -> None:
    """Take out what was loaded, of each function and of the globals, some of which were put in more than once."""
    for code, entry in package._codes.items():
        with contextlib.suppress(Exception):  # nothing was loaded for this one
            reset_precompile_entries(lookup_code(entry) if entry.code_source else code)
    for module, names in package._installed_globals.items():
        package._installed_globals[module] = [n for n in dict.fromkeys(names) if n in module.__dict__]
    package.uninstall()


def _install_global(stock: Any, self: Any, prefix: str, value: Any) -> str:
    """Give a global a name that the module does not have yet.

    Torch counts names from zero in each process, but a loaded model has brought some of them along. This is done for all
    backends, since any of them may compile something in a module that a model was loaded into. Where no name is taken, the name
    is the one that torch would give.
    """
    name = unique_id(prefix)
    while name in self.global_scope:
        name = unique_id(prefix)
    self.install_global_unsafe(name, value)
    return name
