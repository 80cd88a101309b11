"""The five equivalence tests of the user's suite, for each cache of toto_model that slices by a position."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from small_models import breaks, graphs, kvfix, relative_close
from torch import Tensor
from torch.distributions import Distribution

import fxpass
from toto_model import KVCache, Toto, TotoBackbone, TotoConfig, TotoForecaster

CONFIG = dataclasses.replace(TotoConfig.tiny(), num_layers=2, spacewise_every_n_layers=2)
PATCH, VARIATES = CONFIG.patch_size, 3
EVERY_CACHE = pytest.mark.parametrize("kv_cache", ["baseline", "compile_friendly", "upstream"])


def make(kv_cache: str) -> TotoBackbone:
    """One time-wise and one space-wise layer, the same random weights for every cache."""
    torch.manual_seed(0)
    return Toto(CONFIG, kv_cache).eval().model


def series(patches: int) -> Tensor:
    return torch.randn(1, VARIATES, patches * PATCH, generator=torch.Generator().manual_seed(1)).cumsum(-1)


def step(model: Any, x: Tensor, cache: KVCache, prefix: int) -> Tensor:
    """One forward pass over all of ``x``: the mean of what is predicted for the new steps."""
    masks = torch.ones_like(x, dtype=torch.bool), torch.zeros_like(x, dtype=torch.int)
    distribution, loc, scale = model(x, *masks, kv_cache=cache, scaling_prefix_length=prefix)
    assert isinstance(distribution, Distribution)
    mean = distribution.mean
    return mean * scale[..., -mean.shape[-1] :] + loc[..., -mean.shape[-1] :]


def allocate(model: TotoBackbone, patches: int) -> KVCache:
    return model.allocate_kv_cache(1, VARIATES, patches * PATCH, "cpu", torch.float32)


def decode(model: Any, x: Tensor, patches: int, steps: int, states: list[Any]) -> Tensor:
    """Prefill with ``patches`` of ``x``, then ``steps`` predictions, each fed back; notes the cache after each.

    As in the forecaster, the last slot of the cache stays empty, for the last prediction is not fed back.
    """
    cache = allocate(model, patches + steps + 1)
    x = x[..., : patches * PATCH]
    with torch.no_grad():
        for _ in range(steps + 1):
            out = step(model, x, cache, patches * PATCH)[..., -PATCH:]
            x = torch.cat((x, out), dim=-1)
            states.append((cache._keys.clone(), cache._values.clone(), torch.as_tensor(cache._current_idx).clone()))
    return x


def close(found: Tensor, expected: Tensor) -> None:
    relative_close(found, expected)


@dataclasses.dataclass
class Decoded:
    """Nine steps of one model in eager, and twice compiled: the series, and the cache after every step."""

    expected: Tensor
    theirs: list[Any]
    found: list[Tensor]
    mine: list[Any]
    graphs: int
    breaks: int
    report: fxpass.Report


@functools.cache
def decoded(kv_cache: str) -> Decoded:
    """Compiled once for the three tests that follow."""
    model, theirs, mine = make(kv_cache), [], []
    compiled = kvfix(model)
    expected = decode(model, series(8), 8, 8, theirs)
    found = [decode(compiled, series(8), 8, 8, mine) for _ in range(2)]
    return Decoded(expected, theirs, found, mine, graphs(), breaks(), fxpass.reports()[-1])


@EVERY_CACHE
def test_single_step(kv_cache: str):
    run, fed = decoded(kv_cache), 9 * PATCH
    close(run.found[0][..., :fed], run.expected[..., :fed])
    assert run.breaks == 0


def test_single_step_with_aot_autograd():
    model = make("upstream")
    close(decode(kvfix(model, "aot_eager"), series(8), 8, 1, []), decode(model, series(8), 8, 1, []))
    assert breaks() == 0


@EVERY_CACHE
def test_autoregressive(kv_cache: str):
    """Eight steps, twice: two graphs for both."""
    run = decoded(kv_cache)
    for found in run.found:
        close(found, run.expected)
    assert (run.graphs, run.breaks) == (2, 0)
    assert run.report.refused == 0 and run.report.rewritten >= 4


@EVERY_CACHE
def test_cache_state(kv_cache: str):
    """After every step: lengths and unwritten rows bitwise, written rows within 1e-6."""
    run = decoded(kv_cache)
    assert len(run.theirs) == 9 and len(run.mine) == 18
    for n, (found, expected) in enumerate(zip(run.mine, run.theirs * 2, strict=True)):
        rows = 8 + n % 9
        assert torch.equal(found[2], expected[2]) and int(found[2]) == rows
        for a, b in zip(found[:2], expected[:2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
            assert torch.equal(a[:, :, :, rows:], b[:, :, :, rows:])


@EVERY_CACHE
def test_varying_lengths(kv_cache: str):
    """A dynamic prefill is one more graph than two, and the last."""
    model = make(kv_cache)
    compiled = kvfix(model)
    made = []
    for patches in (16, 32, 48, 64, 16):
        expected = decode(model, series(patches), patches, 3, [])
        close(decode(compiled, series(patches), patches, 3, []), expected)
        made.append(graphs())
    assert made[0] == 2 and made[1] <= 3 and made[1:] == [made[1]] * 4
    assert breaks() == 0


def test_last_slot():
    """The step that fills a cache costs a graph, as its slice is contiguous only then, and says so; its numbers are right."""
    model = make("upstream")
    caches = []
    with pytest.warns(fxpass.KvfixWarning, match="KV201 .* KV210 .* runs outside of the static core"):
        for run in (model, kvfix(model)):
            caches.append(allocate(model, 12))
            x, fed = series(12), []
            with torch.no_grad():
                for patches in range(8, 13):
                    fed.append(step(run, x[..., : patches * PATCH].contiguous(), caches[-1], 8 * PATCH)[..., -PATCH:])
            caches.append(torch.stack(fed))
    close(caches[3], caches[1])
    torch.testing.assert_close(caches[2]._keys, caches[0]._keys, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(caches[2]._values, caches[0]._values, rtol=1e-6, atol=1e-6)
    assert graphs() <= 3 and breaks() == 0


@EVERY_CACHE
def test_determinism(kv_cache: str):
    """The same seed twice gives the same samples, bit for bit; and those of eager, closely."""
    model = make(kv_cache)
    x = series(8)
    call: dict[str, Any] = {
        "prediction_length": 4 * PATCH,
        "num_samples": 4,
        "sampling_batch_size": 2,
        "use_kv_cache": True,
        "timestamp_seconds": torch.zeros_like(x, dtype=torch.int),
        "time_interval_seconds": torch.ones(1, VARIATES, dtype=torch.int),
    }
    samples = []
    for forecaster in (TotoForecaster(model), *[TotoForecaster(kvfix(model))] * 3):
        torch.manual_seed(7)
        samples.append(forecaster.generate_samples(x, **call))
    eager, first, second, third = samples
    assert torch.equal(first, second) and torch.equal(second, third)
    close(first, eager)


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.inductor)])
def test_fixed_size_is_the_reference(compiler: str):
    """The hand edit under stock torch.compile: two graphs, the numbers of the unedited model."""
    expected = decode(make("upstream"), series(8), 8, 4, [])
    model: Any = torch.compile(make("fixed_size"), backend=compiler, fullgraph=True)
    cache, x = allocate(model, 12), series(8)
    with torch.no_grad():
        for _ in range(5):
            x = torch.cat((x, step(model, x, cache, 8 * PATCH)[..., -PATCH:]), dim=-1)
    close(x, expected)
    assert graphs() <= 3 and breaks() == 0


@pytest.mark.inductor
def test_through_inductor():
    """One of the caches: what Inductor is given is the same for all (test_graph_equivalence.py)."""
    model = make("compile_friendly")
    expected = decode(model, series(8), 8, 8, [])
    close(decode(kvfix(model, "inductor"), series(8), 8, 8, []), expected)
    assert (graphs(), breaks()) == (2, 0)
