"""The hooks are installed when the backend is first used. A feature gets all of its hooks, or none if torch cannot carry it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CodeType
from typing import Any

from fxpass.options import Options, parse

from . import lookup_order, patches, retrace
from .contracts import Feature
from .dynamo import hooks
from .dynamo.calls import fill_dtypes, orders, outcomes, python_functions, remembered, tensor_questions, texts
from .dynamo.frames import history, swapped_tensors
from .dynamo.guards import builder as guard_builder
from .dynamo.inputs import pinned_numbers
from .dynamo.names import TorchCompileWrapper
from .dynamo.sizes import asked, dynamism, einsum_paths
from .dynamo.variables import module_ints
from .features import give_up, holds
from .precompile import hooks as precompile


@functools.cache
def install(
    backend: Callable[..., Any],
    begin: Callable[[Options], None],
    reset: Callable[[], None],
    left: Callable[[Options, CodeType, Exception], None],
) -> None:
    """Install the hooks for frames that are compiled with ``backend``.

    `torch.compile` then calls ``begin`` with its options, and `torch._dynamo.reset` calls ``reset``; ``left`` is told of a
    function that Dynamo leaves to eager because of an error. On a torch that the hooks do not fit they are not installed, with
    one warning: positions that are held in tensors then break the graph.
    """

    def is_ours(compiler_fn: Any) -> bool:
        return innermost(compiler_fn) is backend

    def told(compiler_fn: Any, code: CodeType, error: Exception) -> None:
        left(options_of(backend, compiler_fn) or parse(), code, error)

    def capture() -> None:
        hooks.install(is_ours, told)
        hooks.parse_options_early(functools.partial(options_of, backend), begin)
        guard_builder.install()
        einsum_paths.install()
        fill_dtypes.install()
        module_ints.install()
        remembered.install()
        tensor_questions.install()
        python_functions.install()
        texts.install()
        orders.install()
        outcomes.install()
        swapped_tensors.install()
        patches.patch("torch._dynamo.reset_code_state", _then(reset))

    _install(Feature.CAPTURE, capture)
    _install(Feature.RETRACE, retrace.install)
    _install(Feature.AGAIN, pinned_numbers.install)
    if holds(Feature.CAPTURE):
        _install(Feature.ASKED, asked.install)
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
        holds(feature)  # warns


def uninstall() -> None:
    """Put back every function of torch that was replaced, for the rest of the process.

    What kvfix compiles from then on is captured as stock Dynamo captures it: a position that is held in a tensor breaks the
    graph. torch keeps the backend that it has looked up once, and asks for nothing that could install the hooks again.
    """
    patches.uninstall()
    lookup_order.forget()
    install.cache_clear()


def forget() -> None:
    """Forget what has been seen of the numbers of frames and modules, which threads ran, and which faults have been told of."""
    history.forget()
    dynamism.forget()
    module_ints.forget()
    lookup_order.forget()
    patches.forget()


def innermost(compiler_fn: Any) -> Any:
    """The backend function that Dynamo and torch.compile have wrapped in ``compiler_fn``."""
    outer, inner = None, compiler_fn
    while inner is not outer:
        outer = _unwrapped(inner)
        inner = getattr(outer, "compiler_fn", outer)
    return inner


def _unwrapped(compiler_fn: Any) -> Any:
    """What Dynamo has wrapped in ``compiler_fn``."""
    while (inner := getattr(compiler_fn, "_torchdynamo_orig_backend", None)) is not None:
        compiler_fn = inner
    return compiler_fn


def options_of(backend: Callable[..., Any], compiler_fn: Any) -> Options | None:
    """The options that `torch.compile` was given with ``backend``; None if it was given another backend."""
    compiler_fn = _unwrapped(compiler_fn)
    if isinstance(compiler_fn, TorchCompileWrapper) and compiler_fn.compiler_fn is backend:
        return parse(compiler_fn.kwargs.get("options"), compiler_fn.kwargs.get("mode"))
    return parse() if compiler_fn is backend else None
