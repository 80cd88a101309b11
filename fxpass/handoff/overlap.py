"""Pieces are lowered while the kernels of those before them are still being compiled.

    for piece in pieces:                      with kernels_later():
        lower; submit kernels; wait      ->       for piece in pieces: lower; submit kernels
                                              wait

Inductor's generated modules end by waiting for their kernels, which other processes compile. Nothing needs them before the
first call.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

_later = threading.local()
"""``waits``, in a thread within `kernels_later`: the modules (their compiler and namespace) that have yet to wait."""


@contextlib.contextmanager
def kernels_later() -> Iterator[None]:
    """What Inductor compiles within has its kernels only at the end, where a kernel's failure to compile is raised too."""
    _install()
    if getattr(_later, "waits", None) is not None:
        yield  # the outer one waits
        return
    waits: list[tuple[Callable[..., None], dict[str, Any]]] = []
    _later.waits = waits
    failed: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failed = error
    _later.waits = None
    for wait, scope in waits:  # all: a module that is asked for again is not run again, and would never wait
        try:
            wait(scope)
        except BaseException as error:
            failed = failed or error
    if failed is not None:
        raise failed


@functools.cache
def _install() -> None:
    from torch._inductor.async_compile import AsyncCompile

    stock = AsyncCompile.wait

    @functools.wraps(stock)
    def wait(self: Any, scope: dict[str, Any]) -> None:
        waits = getattr(_later, "waits", None)
        if waits is None:
            return stock(self, scope)
        waits.append((functools.partial(stock, self), scope))

    AsyncCompile.wait = wait  # type: ignore[method-assign]
