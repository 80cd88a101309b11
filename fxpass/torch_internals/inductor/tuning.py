"""The configurations of Inductor's kernels are timed as they will run: in a recording.

    stock     launch from the host, again and again       12.5 us, 14.6, 15.4     (the host takes 12 of them)
    here      replay a recording of some launches            8 us, 1.3, 1.4

A kernel of a decode step runs for a microsecond or two. Where the host launches it, all of its configurations seem to take as
long as that, and chance decides among them. Where two take equally long in a recording, the one that Inductor names first is
taken: it has fewer programs, and among other kernels fewer programs start sooner.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch

from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.features import holds
from fxpass.torch_internals.patches import is_patched, patch

LAUNCHES = 10
"""So many launches of a kernel are one recording."""

MORE, SHORT = 40, 10e-3
"""So many are it where a launch takes less than these milliseconds: a clock of half a microsecond does not tell 14 from 15."""

WORTH = 0.95
"""A configuration is better than those before it if it takes less than this part of their time."""

_BENCH = "torch._inductor.runtime.triton_heuristics.CachingAutotuner.bench"
_wanted: ContextVar[_Timing | None] = ContextVar("wanted", default=None)


@dataclasses.dataclass
class _Timing:
    """How configurations are timed, and the milliseconds of the best one of each kernel so far."""

    replayed: Callable[[Callable[[], Any], int], float]
    best: WeakKeyDictionary[Any, float] = dataclasses.field(default_factory=WeakKeyDictionary)

    def beside_earlier(self, tuner: Any, took: float) -> float:
        """``took``, or as long as the best one before, if it is hardly shorter."""
        best = self.best.get(tuner, math.inf)
        if took < WORTH * best:
            self.best[tuner] = took
            return took
        return max(took, best)


@contextlib.contextmanager
def timed_by(replayed: Callable[[Callable[[], Any], int], float]) -> Iterator[None]:
    """In the block, in this thread, the configurations are timed by ``replayed(calls, count)``: the microseconds that each
    of the ``count`` things takes that ``calls()`` does on the current stream."""
    if holds(Feature.TUNING) and not is_patched(_BENCH):
        patch(_BENCH, _bench)
    token = _wanted.set(_Timing(replayed))
    try:
        yield
    finally:
        _wanted.reset(token)


def _bench(stock: Callable[..., float], tuner: Any, launcher: Any, *args: Any, **kwargs: Any) -> float:
    """Milliseconds of one launch of ``launcher``. What it writes is a copy of its own each time, as in Inductor's way."""
    timing, most = _wanted.get(), tuner.inductor_meta.get("spill_threshold", 16)
    if timing is None or tuner.custom_kernel or (launcher.n_spills or 0) > most:
        return stock(tuner, launcher, *args, **kwargs)

    def launch(count: int) -> None:
        stream = torch.cuda.current_stream().cuda_stream
        for _ in range(count):
            given, named = tuner.maybe_clone_args({}, *args, **kwargs)
            launcher(*given, **named, stream=stream)

    for count in (LAUNCHES, MORE):
        took = timing.replayed(functools.partial(launch, count), count) / 1e3
        if took > SHORT:
            break
    return timing.beside_earlier(tuner, took)
