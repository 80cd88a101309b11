"""What a decode step costs the host, by stage: ``python -m benchmarks.host`` (about two minutes on a CPU).

The models are narrow: what the host does depends on the number of layers alone. Microseconds, each stage without those inside
of it; a tenth of the steps take less, since on a busy machine a median says more of what else runs:

    guards       from the call until the graph is entered: Dynamo's guards, and the inputs being collected
    mirror       of this, what the host mirror is asked
    around       kvfix's own steps between the parts: buffers, results, index tensors
    prologue     a part, with the wrappers of AOTAutograd and Inductor; so the epilogue, and the core. On a GPU, of the core:
                 the look at addresses and the copies before the launch. On a CPU, the kernels too
    launch       on a GPU, of the core: the launch of the recording
    after        from the graph's results until the caller has them

``to launch`` is what has passed when the recording is launched (on a CPU, when the core is entered). ``--profile`` prints where
Python spends a step.
"""

from __future__ import annotations

import argparse
import cProfile
import functools
import pathlib
import pstats
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import fxpass.backend
from fxpass.execute.compilation.regions import Region
from fxpass.index_tensors import mirror
from fxpass.tools import figures
from fxpass.torch_internals.dynamo.names import skip_code
from toto_model.bench.approaches import REFERENCE, make
from toto_model.bench.sizes import ForecastSize
from toto_model.config import TotoConfig

from . import llama_shapes

STEPS = 40
"""Steps that are measured, after as many that are not."""


class Stopwatch:
    """The time that each stage takes by itself in a call, and when, since its start, the first ``mark`` was entered."""

    def __init__(self) -> None:
        self.calls: list[dict[str, float]] = []
        self._open: list[str] = []
        self._spent: dict[str, float] = {}
        self._last = self._start = 0.0

    def switch(self, now: float) -> None:
        self._spent[self._open[-1]] += now - self._last
        self._last = now

    def stage(self, name: str, run: Callable[..., Any], mark: bool = False) -> Callable[..., Any]:
        """``run`` as a stage called ``name``."""

        @functools.wraps(run)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self._open:
                return run(*args, **kwargs)
            self.switch(now := time.perf_counter())
            if mark:
                self._spent["to launch"] = now - self._start
            self._open.append(name)
            try:
                return run(*args, **kwargs)
            finally:
                self.switch(time.perf_counter())
                self._open.pop()
                if name == "around":
                    self._open[-1] = "after"

        skip_code(timed.__code__)  # type: ignore[attr-defined]  # Dynamo would trace it, and break in it
        return timed

    def call(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """``run``, of which each call is kept."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._spent, self._open = defaultdict(float), ["guards"]
            self._last = self._start = time.perf_counter()
            result = run(*args, **kwargs)
            self.switch(time.perf_counter())
            self._spent["all"] = self._last - self._start
            self._open = []
            self.calls.append(dict(self._spent))
            return result

        return timed

    def fast(self) -> dict[str, float]:
        """Microseconds of each stage, which a tenth of the calls fall below."""
        names = sorted({name for call in self.calls for name in call})
        return {n: 1e6 * statistics.quantiles([call.get(n, 0.0) for call in self.calls], n=10)[0] for n in names}


def watched(watch: Stopwatch) -> None:
    """Let kvfix's own stages be seen by ``watch``, from now on."""
    on_gpu, parts = torch.cuda.is_available(), {}
    for name in ("prologue", "core", "epilogue"):
        parts[name] = watch.stage(name, Region.__call__, mark=name == "core" and not on_gpu)
    Region.__call__ = lambda self, args: parts[self.part.name](self, args)  # type: ignore[method-assign]
    made = fxpass.backend.verified
    fxpass.backend.verified = lambda *args: watch.stage("around", made(*args))
    mirror.values = watch.stage("mirror", mirror.values)
    torch.cuda.CUDAGraph.replay = watch.stage("launch", torch.cuda.CUDAGraph.replay, mark=True)  # type: ignore[method-assign]


def toto(device: str) -> tuple[Any, Callable[[Any], Callable[[Callable[[], None]], None]]]:
    """The published package."""
    config = replace(TotoConfig.tiny(), num_layers=12, spacewise_every_n_layers=12)
    model, forecaster = make(REFERENCE, config, device)
    size = ForecastSize(3, 8 * config.patch_size, 2 * STEPS * config.patch_size)
    series = size.series(device)

    def run(step: Callable[..., Any]) -> None:
        model.forward = step
        size.forecast(forecaster, series)

    return model.forward, run


def llama(device: str) -> tuple[Any, Any]:
    """Meta's code, with 16 layers."""
    _, forward, call = llama_shapes.llama_models(True, device, n_layers=16)
    tokens = torch.randint(0, 64, (1, 16 + 2 * STEPS), device=device)

    def run(step: Callable[..., Any]) -> None:
        call(step, tokens[:, :16], 0)
        for i in range(16, tokens.shape[1]):
            call(step, tokens[:, i : i + 1], i)

    return forward, run


MODELS = {"toto-ts": toto, "llama-models": llama}


def measure(name: str, device: str, compiler: str | None, profile: bool) -> dict[str, float]:
    """Microseconds of each stage of a step of the model ``name``."""
    watch = Stopwatch()
    watched(watch)
    forward, run = MODELS[name](device)
    compiled = torch.compile(forward, backend="kvfix", options={"compiler": compiler} if compiler else None)
    run(compiled)
    run(compiled)
    step = watch.call(compiled)
    run(step)
    watch.calls = watch.calls[-STEPS:]
    row = watch.fast()
    if profile:
        profiler = cProfile.Profile()
        run(lambda *args, **kwargs: profiler.runcall(compiled, *args, **kwargs))
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--compiler")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for name in options.models:
        rows.append({"model": name, "device": device, **measure(name, device, options.compiler, options.profile)})
        print(*(f"{k} {v:.0f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), sep="  ", flush=True)
    if options.json:
        figures.write_figures(options.json, {"command": "python -m benchmarks.host", "rows": rows})


if __name__ == "__main__":
    main()
