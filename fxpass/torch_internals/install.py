"""The hooks go in when the backend is first used, a feature's all or none; what this torch cannot carry stays off."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fxpass.options import Options, parse

from . import patches
from .contracts import Feature
from .dynamo import dynamism, guard_managers, hooks, module_ints
from .dynamo.names import TorchCompileWrapper
from .features import give_up, holds
from .precompile import hooks as precompile


@functools.cache
def install(backend: Callable[..., Any], begin: Callable[[Options], None], reset: Callable[[], None]) -> None:
    """Install the Dynamo hooks for frames compiled with ``backend``; `torch.compile` calls ``begin`` with its options, and
    `torch._dynamo.reset` calls ``reset``.

    On a torch that they do not fit they stay off, with one warning: models compile as without kvfix's capture, and positions
    held in tensors break the graph.
    """

    def is_ours(compiler_fn: Any) -> bool:
        return innermost(compiler_fn) is backend

    def capture() -> None:
        hooks.install(is_ours)
        hooks.parse_options_early(functools.partial(options_of, backend), begin)
        guard_managers.install()
        patches.patch("torch._dynamo.reset_code_state", _then(reset))

    _install(Feature.CAPTURE, capture)
    if holds(Feature.CAPTURE):
        _install(Feature.PRECOMPILE, lambda: precompile.install(functools.partial(options_of, backend)))


def _then(reset: Callable[[], None]) -> Callable[[Callable[[], None]], None]:
    def both(stock: Callable[[], None]) -> None:
        stock()
        reset()

    return both


def _install(feature: Feature, put: Callable[[], None]) -> None:
    if not holds(feature):
        return
    try:
        with patches.all_or_none():
            put()
    except Exception as error:
        give_up(feature, f"{type(error).__name__}: {error}")
        holds(feature)  # says so


def uninstall() -> None:
    """Put every function of torch's that is replaced back; `install` puts the hooks in again."""
    patches.uninstall()
    install.cache_clear()


def forget() -> None:
    """Forget what was first seen of the numbers of frames and modules."""
    dynamism.forget()
    module_ints.forget()
    patches.forget()


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
    if isinstance(compiler_fn, TorchCompileWrapper) and compiler_fn.compiler_fn is backend:
        return parse(compiler_fn.kwargs.get("options"), compiler_fn.kwargs.get("mode"))
    return parse() if compiler_fn is backend else None
