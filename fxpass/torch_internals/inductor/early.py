"""Inductor's kernels start before the ones that they follow are done, and wait. Why this is safe: `kernels.launches.launch`.

    x = tl.load(in_ptr0 + ...)               tl.extra.cuda.gdc_launch_dependents()
    y = x + 1                        ->      tl.extra.cuda.gdc_wait()
    tl.store(out_ptr0 + ..., y)              x = tl.load(in_ptr0 + ...)
                                             ...

Inductor can generate such kernels itself. But then a kernel waits only if it reads what the one before it has written, and each
kernel lets the next one start late. Beside kernels that let the next one start at once, that would be a race.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.patches import is_patched, patch

PATCHES = {"triton.enable_pdl": "at the top"}
"""The config patches that go with `starting_early`; no plain True, so that Inductor's caches tell this code from its own."""

_FILTER = "torch._inductor.codegen.triton.TritonKernel._filter_pdl"

_wanted: ContextVar[bool] = ContextVar("wanted", default=False)


@contextlib.contextmanager
def starting_early() -> Iterator[dict[str, Any]]:
    """In the block, in this thread, Inductor generates such kernels if the GPU can start kernels early, under the config
    patches that are given here."""
    if not holds(Feature.EARLY):
        yield {}
        return
    if not is_patched(_FILTER):
        patch(_FILTER, _filter, contain=False)  # a kernel with one of the two calls might not wait, and an error is better
    token = _wanted.set(True)
    try:
        yield dict(PATCHES)
    finally:
        _wanted.reset(token)


def _filter(stock: Callable[..., Any], kernel: Any, code: Any) -> None:
    """Put the calls of both functions at the top of a kernel's ``code``, all of which is there by now."""
    if not _wanted.get():
        return stock(kernel, code)
    if kernel._enable_pdl_codegen():
        calls = [kernel.GDC_LAUNCH, kernel.GDC_WAIT]
        code._lines = calls + [line for line in code._lines if not any(call in str(line) for call in calls)]
