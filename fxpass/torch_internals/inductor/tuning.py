"""The configurations of Inductor's kernels are timed as they will run: in a recording.

    stock     launch from the host, again and again       12.5 us, 14.6, 15.4     (the host takes 12 of them)
    here      replay a recording of some launches            8 us, 1.3, 1.4

A kernel of a decode step runs for a microsecond or two. Where the host launches it, all of its configurations seem to take as
long as that, and chance decides among them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch

from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.patches import is_patched, patch

LAUNCHES = 10
"""So many launches of a kernel are one recording."""

_BENCH = "torch._inductor.runtime.triton_heuristics.CachingAutotuner.bench"
_wanted: ContextVar[Callable[..., float] | None] = ContextVar("wanted", default=None)


@contextlib.contextmanager
def timed_by(replayed: Callable[[Callable[[], Any], int], float]) -> Iterator[None]:
    """In the block, in this thread, the configurations are timed by ``replayed(calls, count)``: the microseconds that each
    of the ``count`` things takes that ``calls()`` does on the current stream."""
    if holds(Feature.TUNING) and not is_patched(_BENCH):
        patch(_BENCH, _bench)
    token = _wanted.set(replayed)
    try:
        yield
    finally:
        _wanted.reset(token)


def _bench(stock: Callable[..., float], tuner: Any, launcher: Any, *args: Any, **kwargs: Any) -> float:
    """Milliseconds of one launch of ``launcher``. What it writes is a copy of its own each time, as in Inductor's way."""
    replayed, most = _wanted.get(), tuner.inductor_meta.get("spill_threshold", 16)
    if replayed is None or tuner.custom_kernel or (launcher.n_spills or 0) > most:
        return stock(tuner, launcher, *args, **kwargs)

    def launch() -> None:
        stream = torch.cuda.current_stream().cuda_stream
        for _ in range(LAUNCHES):
            given, named = tuner.maybe_clone_args({}, *args, **kwargs)
            launcher(*given, **named, stream=stream)

    return replayed(launch, LAUNCHES) / 1e3
