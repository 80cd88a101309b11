"""The first call is the first to wait for kernels. Until then the next pieces are lowered, and Dynamo makes its guards.

    for piece in pieces:                      with kernels_later() as kernels:
        lower; submit kernels; wait      ->       for piece in pieces: lower; submit kernels
    run                                       run = kernels.before(run)         (waits when it is first called)

Other processes compile the kernels. Each module that Inductor generates ends with a wait for its own; this wait is put off.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.patches import is_patched, patch

from .launchers import compile_launchers

_WAIT = "torch._inductor.async_compile.AsyncCompile.wait"
_compiling: ContextVar[Kernels | None] = ContextVar("compiling", default=None)
"""The kernels of the `kernels_later` block that this thread is in."""

_lock = threading.RLock()
_all: list[Kernels] = []
"""The kernels that nobody has waited for. Whoever waits, waits for all: two pieces may share a module that is loaded once."""


class Kernels:
    """The kernels of the modules that were generated in one block of `kernels_later`."""

    def __init__(self) -> None:
        self._waits: list[functools.partial[None]] = []
        self._error: Exception | None = None

    def wait(self) -> None:
        """Wait for all of them. An error of one module is kept for `before`, and does not stop the others."""
        compile_launchers(wait.args[-1] for wait in self._waits)
        while self._waits:
            try:
                self._waits[0]()
            except Exception as error:
                self._error = self._error or error
            self._waits.pop(0)

    def before(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """``run``, which needs these kernels, preceded by the wait for them. It raises if one of them does not compile."""
        ready = False

        def call(*args: Any) -> Any:
            nonlocal ready
            if not ready:
                with _lock:
                    while _all:
                        _all[0].wait()
                        _all.pop(0)
                if self._error is not None:
                    raise self._error.with_traceback(None)
                ready = True
            return run(*args)

        return call


@contextlib.contextmanager
def kernels_later() -> Iterator[Kernels]:
    """What Inductor compiles in the block, in this thread, gets its kernels when a function that `before` made is called."""
    _install()
    kernels = Kernels()
    token = _compiling.set(kernels)
    try:
        yield kernels
    finally:
        _compiling.reset(token)
        if kernels._waits:
            with _lock:
                _all.append(kernels)


def _install() -> None:
    if holds(Feature.OVERLAP) and not is_patched(_WAIT):
        patch(_WAIT, _wait)


def _wait(stock: Callable[..., None], compiler: Any, scope: dict[str, Any]) -> None:
    kernels = _compiling.get()
    if kernels is None:
        return stock(compiler, scope)
    kernels._waits.append(functools.partial(stock, compiler, scope))
