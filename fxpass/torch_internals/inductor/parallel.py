"""The configurations of a kernel are compiled by several processes side by side.

Inductor gives a kernel to one process, which compiles its configurations one after the other, while other processes idle. Here
each of the others compiles some of the configurations into Triton's cache, where the first process then finds them:

    process 1:  a0 a1 a2 a3 a4       ->       a0, and the others from the cache
    process 2:                                a1
    process 3:                                a2 ...
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.patches import is_patched, patch

PROCESSES = 4
"""How many processes compile one kernel. Few kernels have more configurations than this."""

_SUBMIT = "torch._inductor.compile_worker.subproc_pool.SubprocPool.submit"
_wanted: ContextVar[bool] = ContextVar("wanted", default=False)


@contextlib.contextmanager
def side_by_side() -> Iterator[None]:
    """The kernels of what Inductor compiles in the block, in this thread, are compiled by several processes each."""
    _install()
    token = _wanted.set(True)
    try:
        yield
    finally:
        _wanted.reset(token)


def _install() -> None:
    if holds(Feature.PARALLEL) and not is_patched(_SUBMIT):
        patch(_SUBMIT, _submit)


def _submit(stock: Callable[..., Any], pool: Any, job: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    own = stock(pool, job, *args, **kwargs)
    if getattr(job, "__name__", "") == "_worker_compile_triton" and _wanted.get():
        for first in range(1, PROCESSES):
            stock(pool, exec, _SOURCE, {"job": job, "args": args, "share": slice(first, None, PROCESSES)})
    return own


class _ConfigShare:
    """A stand-in for the kernel that ``load`` loads, of which it compiles the configurations in ``share`` only.

    It runs in a process of Inductor's, and is sent there as text: importing this package would take longer than the kernel.
    """

    def __init__(self, load: Callable[[], Any], share: slice) -> None:
        self._load, self._share = load, share

    def __call__(self) -> _ConfigShare:
        self._kernel = self._load()  # the same one as in the kernel's own job, if that falls to this process
        return self

    def precompile(self, warm_cache_only: bool) -> None:
        for config in (self._kernel.configs or [])[self._share]:
            with contextlib.suppress(Exception):  # the kernel's own job says why
                self._kernel._precompile_config(config)

    def prepare_for_pickle(self) -> None:
        pass


_SOURCE = f"""
from __future__ import annotations
import contextlib
{inspect.getsource(_ConfigShare)}
job(_ConfigShare(args[0], share), *args[1:])
"""
