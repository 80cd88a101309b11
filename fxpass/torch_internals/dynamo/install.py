"""The hooks go in when kvfix is imported, all or none; on a torch that they do not fit they stay off, with one warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from fxpass.errors import KvfixWarning
from fxpass.options import Options, parse
from fxpass.torch_internals.patches import all_or_none, wrap

from . import module_ints

FITS = ("2.11", "2.12", "2.13", "2.14", "2.15")
"""The torch releases that the hooks are written for; 2.11, 2.13 and 2.15 are tested."""

misfit: Exception | None = None
"""Why the hooks do not fit this torch."""

try:
    release = ".".join(torch.__version__.split(".")[:2])
    if release not in FITS:
        raise ImportError(f"torch {release} is none of {', '.join(FITS)}")
    from fxpass.torch_internals.precompile import hooks as precompile

    from . import dynamism, guard_managers, hooks
except Exception as error:
    from . import off as dynamism  # type: ignore[no-redef]
    from . import off as precompile  # type: ignore[no-redef]

    misfit = error

Restart, expect, generalize = dynamism.Restart, dynamism.expect, dynamism.generalize


@functools.cache
def install(backend: Callable[..., Any], begin: Callable[[Options], None]) -> None:
    """Install the Dynamo hooks for frames compiled with ``backend``; `torch.compile` calls ``begin`` with its options.

    On a torch that they do not fit all stay off, with one warning: models compile as without kvfix's capture, and
    positions held in tensors break the graph.
    """

    def is_ours(compiler_fn: Any) -> bool:
        return innermost(compiler_fn) is backend

    try:
        if misfit is not None:
            raise misfit
        with all_or_none():
            hooks.install(is_ours)
            hooks.parse_options_early(functools.partial(options_of, backend), begin)
            guard_managers.install()
            precompile.install(functools.partial(options_of, backend))
            wrap(torch._dynamo, "reset_code_state", _forget_too)
    except Exception as error:
        warnings.warn(
            f"kvfix: positions in tensors are not captured with this torch: {error}", KvfixWarning, stacklevel=2
        )


def forget() -> None:
    """Forget what was first seen of the numbers of frames and modules, as `torch.compiler.reset` lets us do too."""
    dynamism.forget()
    module_ints.forget()


def _forget_too(stock: Callable[[], None]) -> None:
    """Dynamo forgets which numbers have changed: what we know of them goes with it."""
    stock()
    forget()


def innermost(compiler_fn: Any) -> Any:
    """The backend function under Dynamo's and torch.compile's wrappers."""
    for name in ("_torchdynamo_orig_backend", "_compiler_fn", "compiler_fn"):
        inner = getattr(compiler_fn, name, None)
        if inner is not None:
            return innermost(inner)
    return compiler_fn


def options_of(backend: Callable[..., Any], compiler_fn: Any) -> Options | None:
    """What `torch.compile` was asked for with ``backend``; None if it was asked for another."""
    while (inner := getattr(compiler_fn, "_torchdynamo_orig_backend", None)) is not None:
        compiler_fn = inner
    if isinstance(compiler_fn, torch._TorchCompileWrapper) and compiler_fn.compiler_fn is backend:
        return parse(compiler_fn.kwargs.get("options"), compiler_fn.kwargs.get("mode"))
    return parse() if compiler_fn is backend else None
