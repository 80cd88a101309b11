"""``kvfix demo``: one small model, four caches, nine ways to run them.

Every row of the table runs in a process of its own and decodes the same forecasts, feeding its own predictions back.
The reference is eager with the cache of the published package; outputs are compared at every step, prefills included.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from toto_model.backbone import TotoBackbone, TotoOutput
from toto_model.config import TotoConfig
from toto_model.forecaster import TotoForecaster
from toto_model.toto import Toto

VARIATES = 3
CONTEXTS = (8, 8)
"""Length of the context of each forecast, in patches."""
HORIZON = 8
"""Patches that each forecast adds."""
LAYER = "q, k, v = self.project_in(x.flatten(0, 1))"
"""The line of the attention with which the part of a layer begins that the demo shows."""

STOCK, SCALARS, KVFIX = "stock", "stock*", "kvfix"
LEGEND = """stock: torch.compile; stock*: the same with capture_scalar_outputs; then the kind of cache.
MAE and max diff are against eager, over all steps. skips: CUDA graphs that Inductor skipped."""
COLORS = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True)
class DemoRow:
    """A row of the table: how to run the model, with which cache."""

    how: str
    cache: str

    @property
    def name(self) -> str:
        return self.how if self.how == "eager" else f"{self.how} {self.cache}"


APPROACHES = (
    DemoRow("eager", "upstream"),
    DemoRow(STOCK, "baseline"),
    DemoRow(STOCK, "compile_friendly"),
    DemoRow(SCALARS, "compile_friendly"),
    DemoRow(STOCK, "upstream"),
    DemoRow(STOCK, "fixed_size"),
    DemoRow(KVFIX, "baseline"),
    DemoRow(KVFIX, "compile_friendly"),
    DemoRow(KVFIX, "upstream"),
)


@dataclass(frozen=True)
class Settings:
    """What all rows of one table share."""

    compiler: str
    device: str
    seed: int
    verify: int | None = None


def demo_config() -> TotoConfig:
    """A time-wise layer and a space-wise one: the tiny configuration, shortened."""
    return replace(TotoConfig.tiny(), num_layers=2, spacewise_every_n_layers=2)


def make_model(cache: str, seed: int = 0, device: str = "cpu") -> TotoBackbone:
    """The demo's model with random weights; the same ones whatever the cache."""
    torch.manual_seed(seed)
    return Toto(demo_config(), cache).to(device).eval().model


def make_series(patches: int, seed: int = 0, device: str = "cpu") -> Tensor:
    """A random walk, (1, variates, time)."""
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(1, VARIATES, patches * demo_config().patch_size, generator=generator).cumsum(-1).to(device)


def decode_step() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A factory for ``kvfix print``: the transformer on one patch after another, with a cache that is not empty."""
    model = make_model("upstream")
    size = demo_config().patch_size
    cache = model.allocate_kv_cache(1, VARIATES, 16 * size, "cpu", torch.float32)
    ids = torch.zeros(1, VARIATES, 4, dtype=torch.int)
    x = torch.randn(1, VARIATES, 4, model.embed_dim)
    with torch.no_grad():
        model.transformer(x, ids, cache)
    return model.transformer, (x[:, :, -1:].contiguous(), ids[:, :, -1:].contiguous(), cache), {}


# -- one row


class Recorder:
    """A model that keeps, for each call, the predicted mean, the time that it took and whether it was a decode step."""

    def __init__(self, model: Any, device: str) -> None:
        self.model = model
        self.device = device
        self.calls: list[tuple[Tensor, float, bool]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, **inputs: Any) -> TotoOutput:
        self._wait()
        start = time.perf_counter()
        distribution, loc, scale = self.model(**inputs)
        self._wait()
        seconds = time.perf_counter() - start
        mean = distribution.mean
        new = mean.shape[-1]
        output = (mean * scale[..., -new:] + loc[..., -new:]).clone()
        self.calls.append((output, seconds, new == self.patch_embed.patch_size))
        return TotoOutput(distribution, loc, scale)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def forecasts(model: Any, seed: int, device: str) -> list[tuple[Tensor, float, bool]]:
    """Every step of every forecast: output, seconds, and whether it is a decode step of the last forecast."""
    steps: list[tuple[Tensor, float, bool]] = []
    for i, context in enumerate(CONTEXTS):
        recorder = Recorder(model, device)
        series = make_series(context, seed + i, device)
        TotoForecaster(recorder).generate_mean(  # type: ignore[arg-type]
            series,
            HORIZON * demo_config().patch_size,
            torch.zeros_like(series, dtype=torch.int),
            torch.ones(series.shape[:2], dtype=torch.int, device=device),
            use_kv_cache=True,
        )
        last = i == len(CONTEXTS) - 1
        steps += [(output, seconds, decode and last) for output, seconds, decode in recorder.calls]
    return steps


def compiled(approach: DemoRow, settings: Settings) -> Any:
    """The model as the row asks for it."""
    model = make_model(approach.cache, settings.seed, settings.device)
    if approach.how == "eager":
        return model
    if approach.how == KVFIX:
        asked = {} if settings.verify is None else {"verify": settings.verify}
        return torch.compile(model, backend="kvfix", options={"compiler": settings.compiler, **asked})
    if approach.how == SCALARS:
        torch._dynamo.config.capture_scalar_outputs = True
    mode = "reduce-overhead" if settings.device == "cuda" and settings.compiler == "inductor" else None
    return torch.compile(model, backend=settings.compiler, mode=mode)


def run_row(approach: DemoRow, settings: Settings) -> dict[str, Any]:
    """One row, measured in this process, and under "report" that of the last graph, where kvfix made one."""
    import fxpass
    from fxpass.tools.compare import TimedStep, measure

    reference = forecasts(make_model("upstream", settings.seed, settings.device), settings.seed, settings.device)

    def run() -> Iterator[TimedStep]:
        for step in forecasts(compiled(approach, settings), settings.seed, settings.device):
            yield TimedStep(*step)

    is_compiled = approach.how != "eager"
    row = measure(approach.name, run, [step[0] for step in reference], is_compiled, settings.device == "cuda")
    reports = fxpass.reports()
    return {**asdict(row), "report": reports[-1] if reports else None}


def run_apart(approach: DemoRow, settings: Settings) -> dict[str, Any]:
    """`run_row` in a process of its own, forked from one that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toto_model.demo", "fxpass", "torch._inductor.compile_fx"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_row, args=(sender, approach, settings), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return {"approach": approach.name, "error": f"the process ended with status {process.exitcode}", "report": None}


def _send_row(sender: Any, approach: DemoRow, settings: Settings) -> None:
    """In the new process: what torch logs and warns about stays away from the table."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)  # on so small a model, more only wait for each other
    sender.send(run_row(approach, settings))


# -- the demo


def run(
    compiler: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    as_json: bool = False,
    verify: int | None = None,
) -> int:
    """Run all rows, some at a time, and print what came out; the exit status is 1 if a kvfix row failed.

    ``verify`` is the backend's option; where it is None, the environment says it.
    """
    from rich.console import Console

    from fxpass.tools.compare import ComparisonRow

    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        print(f"kvfix: no device {device!r} here; there is cpu, and cuda where torch finds a GPU", file=sys.stderr)
        return 2
    settings = Settings(compiler or default_compiler(device), device, seed, verify)
    start = time.perf_counter()
    progress = Console(stderr=True, quiet=as_json)
    progress.print(f"{len(APPROACHES)} ways to decode, compiled with {settings.compiler}; each in its own process ...")
    if device == "cpu":
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # the rows share the cores already

    def run_one(approach: DemoRow) -> dict[str, Any]:
        result = run_apart(approach, settings)
        progress.print(f"  {approach.name}: {result.get('seconds', 0.0):.0f} s", highlight=False)
        return result

    with ThreadPoolExecutor(1 if device != "cpu" else min(4, os.cpu_count() or 1)) as pool:
        started = {approach: pool.submit(run_one, approach) for approach in longest_first()}
        results = {approach: future.result() for approach, future in started.items()}
    report = results[APPROACHES[-1]]["report"]
    rows = [ComparisonRow(**{k: v for k, v in results[a].items() if k != "report"}) for a in APPROACHES]
    seconds = time.perf_counter() - start
    if as_json:
        facts = {"torch": torch.__version__, **asdict(settings), "seconds": seconds}
        print(json.dumps({**facts, "rows": [asdict(r) for r in rows], "report": report and plain(report)}))
    else:
        show(rows, report, settings, seconds)
    return int(any(row.error for row in rows if row.approach.startswith(KVFIX)))


def show(rows: Sequence[Any], report: Any, settings: Settings, seconds: float) -> None:
    """Print the sites, one layer before and after, and the table."""
    from rich.text import Text

    from fxpass.report.excerpt import section_diff
    from fxpass.report.text import wide
    from fxpass.tools.compare import comparison_table, notes

    console = wide()
    if report is not None:
        console.print("\n[bold]What kvfix found in the decode step[/bold] (upstream cache)\n")
        console.print(report)
        console.print("\n[bold]The first layer before and after[/bold], changed lines with one line around them\n")
        for line in section_diff(report, LAYER).splitlines():
            console.print(Text(line, style=COLORS.get(line[0], "")), highlight=False, soft_wrap=True)
    config = demo_config()
    console.print(
        f"\n[bold]Comparison[/bold]: {config.num_layers} layers of width {config.embed_dim}, {VARIATES} variates, "
        f"contexts of {' and '.join(map(str, CONTEXTS))} patches, {HORIZON} patches forecast; "
        f"{settings.compiler}, {settings.device}, torch {torch.__version__}, seed {settings.seed}\n",
        highlight=False,
    )
    for line in (comparison_table(rows), "", LEGEND, *notes(rows)):
        console.print(Text(line), highlight=False, soft_wrap=True)
    console.print(f"\n{seconds:.0f} s in all.", highlight=False)


def default_compiler(device: str) -> str:
    """Inductor, where this machine has the C++ compiler that it needs for a CPU."""
    has_compiler = any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)
    return "inductor" if device != "cpu" or has_compiler else "aot_eager"


def longest_first() -> list[DemoRow]:
    """The rows in the order in which to start them: later stock rows find kernels of the first in Inductor's cache."""
    broken = [a for a in APPROACHES if a.how in (STOCK, SCALARS) and a.cache != "fixed_size"]
    return [broken[0], *(a for a in APPROACHES if a not in broken), *broken[1:]]


def plain(report: Any) -> dict[str, Any]:
    """A Report as a dict for JSON, without the flow graph."""
    kept = ("name", "before", "after", "unfit", "parts", "timings")
    return {**{name: getattr(report, name) for name in kept}, "sites": [asdict(site) for site in report.sites]}

