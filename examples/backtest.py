"""A backtest on daily market closes: ``pip install toto-ts==0.2.0 arch matplotlib``.

Rolling origin: the published Toto 1.0, unedited, forecasts S&P 500, NASDAQ and VIX (from the package ``arch``) from many
days in turn, first in eager, then compiled with kvfix. Printed: forecast errors beside those of a forecast that repeats the
last close, the difference between both passes, times, and what Dynamo did; a plot shows it. The weights are not the published
ones: they are trained here, briefly, on the days before the first origin, or random with ``--random``.

``TOTO_COMPILE=0`` runs the eager pass alone. Exit status 1: kvfix differs from eager, a graph was compiled again after the
first forecasts, or a CUDA graph was skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import os
import pathlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch._dynamo.utils import counters

from fxpass.tools import figures as recorded
from fxpass.tools.counting import counting
from toto_model import TotoConfig

warnings.filterwarnings("ignore", module=r"toto\b|rotary_embedding_torch|gluonts")

try:
    import backtest_report as report
    from arch.data import nasdaq, sp500, vix
    from toto.inference.forecaster import TotoForecaster
    from toto.model.toto import Toto
except ImportError as error:
    sys.exit(f"{error}. This example needs more packages: pip install toto-ts==0.2.0 arch matplotlib")

NAMES = ("S&P 500", "NASDAQ", "VIX")
WARM_UP = 2  # forecasts that may compile; on a GPU the second one may still record CUDA graphs
LIMIT = 1e-6  # the mean absolute difference from eager, relative to eager's mean absolute forecast, is below this
BATCH = 8


class Pass(NamedTuple):
    """All forecasts of one way to run the model, (origins, series, horizon), and the seconds that each took."""

    forecasts: torch.Tensor
    seconds: list[float]


def parse() -> argparse.Namespace:
    """The options, checked, with the defaults that depend on device and size filled in."""
    parser = argparse.ArgumentParser(description="Backtest Toto on daily market closes, in eager and with kvfix.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compiler", choices=["eager", "aot_eager", "inductor"], help="inductor on cuda, or aot_eager")
    parser.add_argument("--base", action="store_true", help="the public base configuration, for a GPU")
    parser.add_argument("--random", action="store_true", help="random weights in place of briefly trained ones")
    parser.add_argument("--train-steps", type=int, default=150)
    parser.add_argument("--origins", type=int, default=60, help="how many days to forecast from")
    parser.add_argument("--stride", type=int, default=2, help="days from one origin to the next")
    parser.add_argument("--context", type=int, help="days that the model sees: 256, or 512 with --base")
    parser.add_argument("--horizon", type=int, help="days that it forecasts: 20, or 256 with --base")
    parser.add_argument("--plot", default="backtest.png", metavar="PATH")
    parser.add_argument("--json", metavar="PATH", help="also write the figures there")
    options = parser.parse_args()
    options.compiler = options.compiler or ("inductor" if options.device == "cuda" else "aot_eager")
    options.cuda_graphs = options.device == "cuda" and options.compiler == "inductor"
    options.context = options.context or (512 if options.base else 256)
    options.horizon = options.horizon or (256 if options.base else 20)
    options.toto_compile = os.environ.get("TOTO_COMPILE", "1")
    if options.toto_compile not in ("0", "1"):
        parser.error(f"TOTO_COMPILE is 0 or 1, not {options.toto_compile!r}")
    if options.context % configuration(options.base).patch_size:
        parser.error(f"--context must be a multiple of the patch, {configuration(options.base).patch_size} days")
    if options.origins <= WARM_UP or min(options.stride, options.horizon, options.train_steps) < 1:
        parser.error(f"--origins must be above {WARM_UP}; --stride, --horizon and --train-steps above 0")
    return options


def configuration(base: bool) -> TotoConfig:
    """The public base model, or a tiny one whose patch of four days gives a forecast of a month several decode steps."""
    if base:
        return TotoConfig.base()
    return dataclasses.replace(TotoConfig.tiny(), patch_size=4, stride=4, embed_dim=64, mlp_hidden_dim=128)


def load_closes() -> tuple[Any, torch.Tensor]:
    """The days on which all three series have a close, and the closes, (series, days)."""
    closes = sp500.load()[["Close"]].join([nasdaq.load()["Close"].rename("n"), vix.load()["vix"].rename("v")]).dropna()
    return closes.index, torch.tensor(closes.to_numpy().T, dtype=torch.float32)


def make_model(past: torch.Tensor, options: argparse.Namespace) -> tuple[Any, str]:
    """The published model in evaluation mode, and words on its weights."""
    torch.manual_seed(0)
    model = Toto(**configuration(options.base).to_dict()).to(options.device).model.eval()
    if options.random:
        return model, "random, untrained; the errors say nothing about Toto"
    start = time.perf_counter()
    losses = train(model, past, options)
    said = f"self-trained, {len(losses)} steps in {time.perf_counter() - start:.0f} s on the {past.shape[-1]} days"
    said += f" before the first origin, loss {losses[0]:.2f} to {statistics.mean(losses[-10:]):.2f};"
    return model.eval(), said + "\n  not the published weights, so the errors are not those of the published model"


def train(model: Any, past: torch.Tensor, options: argparse.Namespace) -> list[float]:
    """Next-patch prediction on random crops of ``past``; gives the loss (negative log-likelihood) of each step.

    At each day of a patch the model gives the distribution of the same day of the next patch, in units of the ``scale``
    around the ``loc`` of its own patch; the last patch of a crop has no next one.
    """
    patch, rate = model.patch_embed.stride, 3e-4 if options.base else 3e-3
    length = min(options.context + options.horizon, past.shape[-1]) // patch * patch
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, options.train_steps)
    losses = []
    model.train()
    for _ in range(options.train_steps):
        starts = torch.randint(past.shape[-1] - length + 1, (BATCH,)).tolist()
        crops = torch.stack([past[:, start : start + length] for start in starts]).to(options.device)
        distribution, loc, scale = model(crops, torch.ones_like(crops, dtype=torch.bool), torch.zeros_like(crops))
        loss = -distribution.log_prob((crops.roll(-patch, -1) - loc) / scale)[..., :-patch].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def forecast_all(model: Any, contexts: torch.Tensor, horizon: int, warmed_up: Callable = lambda: None) -> Pass:
    """A forecast from each of ``contexts``, (origins, series, days); ``warmed_up`` is called before the first steady one."""
    forecaster, forecasts, seconds = TotoForecaster(model), [], []
    wait = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
    for done, context in enumerate(contexts.to(model.device).unsqueeze(1)):
        if done == WARM_UP:
            warmed_up()
        wait()
        start = time.perf_counter()
        found = forecaster.generate_mean(
            inputs=context,
            prediction_length=horizon,
            timestamp_seconds=torch.zeros_like(context, dtype=torch.int),
            time_interval_seconds=torch.full_like(context[..., 0], 86400, dtype=torch.int),
            use_kv_cache=True,
        )
        wait()
        seconds.append(time.perf_counter() - start)
        forecasts.append(found[0].double().cpu())
    return Pass(torch.stack(forecasts), seconds)


def compiled_pass(model: Any, contexts: torch.Tensor, options: argparse.Namespace) -> tuple[Pass, dict[str, Any]]:
    """The same forecasts with the model's forward compiled, and what Dynamo, Inductor and torch's warnings said meanwhile.

    ``frames`` counts what Dynamo was asked to compile: once the first forecasts are made, each more is a recompilation.
    """
    messages: list[str] = []
    frames = 0

    def warmed_up() -> None:
        nonlocal frames
        frames = counters["frames"]["total"]

    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    loggers = [log for log in map(logging.getLogger, logging.root.manager.loggerDict) if log.name.startswith("torch")]
    loggers = [log for log in loggers if log.name == "torch" or not log.propagate]
    for logger in loggers:
        logger.addHandler(handler)
    with counting() as counts, warnings.catch_warnings(record=True) as caught:
        model.forward = torch.compile(model.forward, backend="kvfix", options={"compiler": options.compiler})
        result = forecast_all(model, contexts, options.horizon, warmed_up)
        frames = counters["frames"]["total"] - frames
    for logger in loggers:
        logger.removeHandler(handler)
    messages += [str(warning.message) for warning in caught]
    skips = max(len(counts.skips), counters["inductor"]["cudagraph_skips"])
    return result, {
        "graphs": counts.graphs,
        "breaks": counts.breaks,
        "recompiles": counts.recompiles,
        "steady_recompiles": frames,
        "recompile_warnings": sum("recompil" in text or "cache_size_limit" in text for text in messages),
        "cudagraph_skips": skips if options.cuda_graphs else 0,  # Inductor counts one on a CPU, too
        "warnings": messages,
    }


def check(apart: list[dict[str, Any]], seen: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """Print how the passes compare and what was counted; gives a sentence for each thing that is wrong."""
    relative = [row["relative_mae"] for row in apart]
    largest = max(relative) if all(map(math.isfinite, relative)) else math.inf
    print(f"\nlargest relative MAE: {largest:.1e} (must be below {LIMIT:.0e})")
    print(f"graphs: {seen['graphs']} (prefill and decode make 2), breaks: {seen['breaks']}")
    print(f"recompiles after the first {WARM_UP} forecasts: {seen['steady_recompiles']}")
    print(f"recompile warnings: {seen['recompile_warnings']}")
    print(
        f"CUDA graph skips: {seen['cudagraph_skips']}{'' if options.cuda_graphs else ' (n/a: none are made in this run)'}"
    )
    print(f"warnings: {len(seen['warnings'])}", *sorted(set(seen["warnings"])), sep="\n  ")
    wrong = {
        f"kvfix's forecasts differ from eager's by a relative MAE of {largest:.1e}.": not largest < LIMIT,
        "A graph was compiled again after the first forecasts.": seen["steady_recompiles"],
        "torch warned about recompilation.": seen["recompile_warnings"],
        "CUDA graphs were skipped.": seen["cudagraph_skips"],
    }
    return [sentence for sentence, holds in wrong.items() if holds]


def times(seconds: list[float]) -> dict[str, Any]:
    """The first forecast, the median of the steady ones, all together, and each."""
    steady = statistics.median(seconds[WARM_UP:])
    return {"first_s": seconds[0], "steady_median_s": steady, "total_s": sum(seconds), "each_s": seconds}


def main() -> None:
    """Run the passes, print, plot, and fail where they do not agree."""
    options = parse()
    dates, closes = load_closes()
    first = closes.shape[-1] - options.horizon - (options.origins - 1) * options.stride
    if first < options.context:
        sys.exit(f"The series have {closes.shape[-1]} days, too few for these origins, stride, context and horizon.")
    origins = range(first, first + options.origins * options.stride, options.stride)
    on = f"cpu, {os.cpu_count()} cores" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    config = configuration(options.base)
    print(f"data: closes of {', '.join(NAMES)} (package arch), {len(dates)} days, {dates[0]:%F} to {dates[-1]:%F}")
    print(f"origins: {len(origins)}, {options.stride} days apart, {dates[first - 1]:%F} to {dates[origins[-1] - 1]:%F}")
    print(f"at each: context {options.context} days, horizon {options.horizon}")
    size = f"{config.num_layers} layers of width {config.embed_dim}, patches of {config.patch_size} days"
    print(f"model: toto-ts {version('toto-ts')}, {size}; torch {torch.__version__} on {on}", flush=True)
    model, weights = make_model(closes[:, :first], options)
    print(f"weights: {weights}", flush=True)

    contexts = torch.stack([closes[:, day - options.context : day] for day in origins])
    truth = torch.stack([closes[:, day : day + options.horizon] for day in origins]).double()
    naive = contexts[..., -1:].expand_as(truth)
    eager = forecast_all(model, contexts, options.horizon)
    passes = {"eager": eager}
    asked = {name: value for name, value in vars(options).items() if name not in ("device", "plot", "json")}
    figures: dict[str, Any] = {"device": on, **asked, "weights": weights}
    figures["errors"] = report.errors(NAMES, eager.forecasts, truth, naive)
    report.print_errors(figures["errors"])
    wrong: list[str] = []
    if options.toto_compile == "1":
        run, seen = compiled_pass(model, contexts, options)
        apart = report.differences(NAMES, run.forecasts, eager.forecasts)
        passes[f"kvfix, {options.compiler}"] = run
        report.print_differences(apart)
        wrong = check(apart, seen, options)
        figures |= {"differences": apart, **seen}
    else:
        print("\nTOTO_COMPILE=0: the eager pass alone. Nothing was compiled, so there is nothing to compare.")
    seconds = {name: run.seconds for name, run in passes.items()}
    figures["times"] = {name: times(each) for name, each in seconds.items()}
    report.print_times(figures["times"])
    name, run = list(passes.items())[-1]
    title = f"Toto on daily closes; forecasts by {name}; weights {weights.split(',')[0]}"
    report.draw(options.plot, title, dates, closes, origins, dict(zip(NAMES, run.forecasts.unbind(1), strict=True)), seconds)
    print(f"\nplot: {options.plot}")
    if options.json:
        recorded.write_figures(pathlib.Path(options.json), figures)
    if wrong:
        sys.exit(" ".join(wrong))


if __name__ == "__main__":
    main()
