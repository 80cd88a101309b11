"""The real toto-ts in its public base configuration on a GPU: one recording, one launch a step, eager's numbers.

Compiling it takes a minute: the tests here share one compiled model. Run with ``pytest -m gpu tests/gpu``; figures go to
benchmarks/results/.
"""

from __future__ import annotations

import os
import pathlib
import time
import warnings
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

import fxpass
from fxpass.tools.counting import recordings
from fxpass.tools.figures import write_figures
from toto_model.bench.approaches import REFERENCE, make
from toto_model.bench.sizes import ForecastSize
from toto_model.config import TotoConfig

pytestmark = pytest.mark.gpu

SIZE, PATCH = ForecastSize(7, 4096, 1536), TotoConfig.base().patch_size


def record(name: str, values: dict[str, Any]) -> None:
    """``values`` to benchmarks/results/NAME.json, or under $KVFIX_RESULTS."""
    write_figures(pathlib.Path(os.environ.get("KVFIX_RESULTS", "benchmarks/results")) / f"{name}.json", values)


class Compiled:
    """The compiled model with eager's forecast, counts and warnings from its first two forecasts."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        counters.clear()
        fxpass.reset()
        self.model, self.forecaster = make(REFERENCE, TotoConfig.base(), "cuda")
        self.series = SIZE.series("cuda")
        self.eager = self.forecast()
        options = {"inductor": {"triton.cudagraph_or_error": True}}
        self.forward = torch.compile(self.model.forward, backend="kvfix", options=options)
        self.model.forward = self.forward
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.perf_counter()
            self.forecast().cpu()
            self.first_seconds = time.perf_counter() - start
            self.kvfix = self.forecast()
        self.warnings = [str(w.message) for w in caught]

    def forecast(self) -> torch.Tensor:
        return SIZE.forecast(self.forecaster, self.series)


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing is reset between these tests."""


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return Compiled()


def test_two_graphs_no_break_and_eagers_numbers(compiled: Compiled) -> None:
    difference = (compiled.kvfix - compiled.eager).abs()
    scale = compiled.eager.abs().mean().item()
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    assert counters["inductor"]["cudagraph_skips"] == 0
    assert not [w for w in compiled.warnings if "cudagraph" in w.lower() or "kvfix" in w.lower()]
    assert difference.mean().item() < 1e-6 * scale
    record(
        "toto_ts_base_equivalence",
        {
            "mae": difference.mean().item(),
            "max": difference.max().item(),
            "mean_absolute_value": scale,
            "graphs": counters["stats"]["unique_graphs"],
            "breaks": sum(counters["graph_break"].values()),
            "cudagraph_skips": counters["inductor"]["cudagraph_skips"],
            "cold_compile_s": compiled.first_seconds,
            "parts": [[list(part) for part in report.parts] for report in fxpass.reports()],
        },
    )


def test_one_launch_a_step_and_no_copy_to_the_host(compiled: Compiled) -> None:
    seen = []

    def watched(*args, **kwargs):
        if kwargs["inputs"].shape[-1] == SIZE.context:
            return compiled.forward(*args, **kwargs)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            out = compiled.forward(*args, **kwargs)
            torch.cuda.synchronize()
        names = {e.key: e.count for e in profiled.key_averages()}
        launches = names.get("cudaGraphLaunch", 0)
        to_host = sum(count for name, count in names.items() if "DtoH" in name or "_local_scalar_dense" in name)
        seen.append((launches, to_host))
        return out

    compiled.model.forward = watched
    try:
        compiled.forecast()
    finally:
        compiled.model.forward = compiled.forward
    assert seen == [(1, 0)] * (SIZE.horizon // PATCH - 1)


def test_twenty_more_forecasts_record_nothing_new(compiled: Compiled) -> None:
    compiled.forecast()
    before = recordings()
    for _ in range(20):
        compiled.forecast()
    assert recordings() == before
    assert counters["stats"]["unique_graphs"] == 2


def test_fifty_forecasts_and_two_live_caches_record_a_bounded_number(compiled: Compiled) -> None:
    held = []
    start = recordings()
    memory = []
    for _ in range(50):
        compiled.forecast()
        memory.append(torch.cuda.memory_allocated())
    after_fifty = recordings()
    caches = [allocate(compiled.model) for _ in range(2)]
    for _ in range(3):
        for cache in caches:
            cache.reset()
            held.append(run_with(compiled, cache))
    assert all(torch.equal(a, held[0]) for a in held[1:])
    assert after_fifty == start  # each forecast's cache lies where the one before did
    assert recordings() - after_fifty <= 1  # two at once: one more
    assert memory[-1] <= memory[5] * 1.01
    record(
        "toto_ts_base_recordings",
        {
            "recordings_before": start,
            "recordings_after_50_forecasts": after_fifty,
            "recordings_after_two_live_caches": recordings(),
            "memory_allocated_mib": memory[-1] / 2**20,
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        },
    )


def allocate(model):
    return model.allocate_kv_cache(1, SIZE.variates, SIZE.context + SIZE.horizon, torch.device("cuda"), torch.float32)


@torch.no_grad()
def run_with(compiled: Compiled, cache) -> torch.Tensor:
    """Prefill and four decode steps with ``cache``; the means, side by side."""
    data = compiled.series["inputs"]
    means = []
    for _ in range(5):
        shape = data.shape
        out, loc, scale = compiled.forward(
            inputs=data,
            input_padding_mask=torch.ones(shape, dtype=torch.bool, device="cuda"),
            id_mask=torch.zeros(shape, dtype=torch.int, device="cuda"),
            kv_cache=cache,
            scaling_prefix_length=SIZE.context,
            num_exogenous_variables=0,
        )
        mean = (out.mean[..., -PATCH:] * scale[..., -PATCH:] + loc[..., -PATCH:]).clone()
        means.append(mean)
        data = torch.cat([data, mean], -1)
    return torch.cat(means, -1)
