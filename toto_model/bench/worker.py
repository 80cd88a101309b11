"""One approach in a process of its own, which does what it is asked and keeps its compiled model in between.

A request is the name of a method of `Subject`; the answer is what that returns, or the exception that ended it.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass
from typing import Any

from toto_model.bench.approaches import EAGER, KEPT, Approach
from toto_model.bench.sizes import ForecastSize
from toto_model.config import TotoConfig


@dataclass(frozen=True)
class Setting:
    """What all approaches of one table share."""

    size: ForecastSize
    config: TotoConfig
    device: str
    backend: str


class Subject:
    """The model of ``approach`` and what can be asked about it."""

    def __init__(self, approach: Approach, setting: Setting) -> None:
        import torch

        from toto_model.bench import approaches
        from toto_model.bench.clocks import FirstLaunch

        self.torch = torch
        self.gpu = setting.device == "cuda"
        self.launches = FirstLaunch().watch()  # before anything is recorded
        self.size = setting.size
        self.patch = setting.config.patch_size
        self.model, self.forecaster = approaches.make(approach, setting.config, setting.device)
        self.series = setting.size.series(setting.device)
        self.is_compiled = approach.how != EAGER
        self._run()  # what any process pays once, compiled or not: the device's context, cuBLAS
        self._compile = lambda: approaches.compiled(approach, self.model, setting.backend)

    def first(self) -> dict[str, Any]:
        """``torch.compile`` and the forecast that compiles, in seconds."""
        if not self.is_compiled:  # it comes first: no other is the one that reads the compiler from the disk
            import torch._inductor.compile_fx  # noqa: F401
        start = time.perf_counter()
        self.forward = self.model.forward = self._compile()
        self._run()
        self._wait()
        return {"seconds": time.perf_counter() - start}

    def settle(self) -> dict[str, Any]:
        """Two further forecasts, after which nothing is compiled or recorded any more."""
        return {"settling_s": [self._timed(), self._timed()]}

    def round(self) -> dict[str, Any]:
        """One forecast: seconds, and for each call of the model milliseconds in place and on the host."""
        from toto_model.bench.clocks import Plain

        clock = Plain(self.forward, self.gpu, launches=self.launches)
        seconds = self._timed(clock)
        return {
            "forecast_s": [seconds],
            "prefill_ms": clock.ms[:1],
            "call_ms": clock.ms[1:],
            "host_ms": clock.host_ms[1:],
            "launch_ms": clock.launch_ms,
        }

    def apart(self) -> dict[str, Any]:
        """Measured in forecasts of their own: the device alone, time outside the model, one step's launches, memory."""
        from toto_model.bench.clocks import Plain, Profiled, Waiting

        if not self.gpu:
            return {}
        ahead = Plain(self.forward, self.gpu, ahead=True)
        self._run(ahead)
        outside = []
        for _ in range(3):
            waiting = Waiting(self.forward)
            whole = self._timed(waiting)
            outside.append(whole - waiting.seconds)
        steps = -(-self.size.horizon // self.patch)
        profiled = Profiled(self.forward, 1 + max(1, steps // 2))
        self._run(profiled)
        self._run()
        self.torch.cuda.reset_peak_memory_stats()
        self._run()
        return {
            "device_ms": ahead.ms[1:],
            "outside_s": outside,
            "peak_mib": self.torch.cuda.max_memory_allocated() / 2**20,
            **profiled.found,
        }

    def forecast(self) -> Any:
        """The forecast itself."""
        return self._run().cpu().numpy()

    def _run(self, forward: Any = None) -> Any:
        kept = self.model.forward
        if forward is not None:
            self.model.forward = forward
        try:
            return self.size.forecast(self.forecaster, self.series)
        finally:
            self.model.forward = kept

    def _timed(self, forward: Any = None) -> float:
        self._wait()
        start = time.perf_counter()
        self._run(forward)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.gpu:
            self.torch.cuda.synchronize()


def serve(pipe: Any, approach: Approach, setting: Setting, cache: str, log: str) -> None:
    """The process: answer requests until "end", which is answered with the counts.

    Compiled code is kept under ``cache``; what torch prints goes to the file ``log``.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    warnings.simplefilter("default")
    import torch

    from fxpass.tools.counting import counting, recordings

    torch._dynamo.config.caching_precompile = approach.how == KEPT
    try:
        with counting() as counts:
            subject = Subject(approach, setting)
            pipe.send({})
            while (request := pipe.recv()) != "end":
                pipe.send(getattr(subject, request)())
            found: dict[str, Any] = {"recordings": recordings() if subject.gpu else None}
        if approach.how == KEPT:
            torch.compiler.save_cache_artifacts()
        if subject.is_compiled:
            found |= {"graphs": counts.graphs, "breaks": counts.breaks, "recompiles": counts.recompiles}
            found["skips"] = counts.skips if subject.gpu else None
        pipe.send(found)
    except Exception as error:  # becomes the row's
        lines = str(error).strip().splitlines()
        pipe.send(RuntimeError(f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]))


def floor(pipe: Any, setting: Setting) -> None:
    """The process that measures the floor: the time in which this device reads the weights once."""
    import statistics

    import torch

    from toto_model.bench.clocks import Plain
    from toto_model.toto import Toto

    with torch.device("meta"):
        size = sum(p.numel() * p.element_size() for p in Toto(setting.config).parameters())
    weights = torch.ones(size // 4, device=setting.device)
    clock = Plain(lambda: torch.amax(weights), gpu=True, ahead=True)
    for _ in range(30):
        clock()
    ms = statistics.median(clock.ms[5:])
    pipe.send({"weights_mb": size / 1e6, "floor_ms": ms, "gb_per_s": size / ms / 1e6})
