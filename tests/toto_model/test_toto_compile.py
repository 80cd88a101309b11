"""The fixed-size cache under stock torch.compile."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo.testing import CompileCounter
from toto_cases import PATCH, make_reference, masks, ours, random_series, times

from toto_model import TotoForecaster


def test_fixed_size_is_two_full_graphs():
    model = ours(make_reference(), "fixed_size").model
    series = random_series()
    call: dict[str, Any] = {
        "prediction_length": 6 * PATCH,
        "use_kv_cache": True,
        **times(series),
        **masks(series, "mixed"),
    }
    expected = TotoForecaster(model).generate_mean(series, **call)

    torch._dynamo.reset()
    counter = CompileCounter()
    forecaster = TotoForecaster(torch.compile(model, fullgraph=True, backend=counter))
    torch.testing.assert_close(forecaster.generate_mean(series, **call), expected, rtol=1e-6, atol=1e-6)
    assert counter.frame_count == 2  # prefill and decode
    forecaster.generate_mean(series, **call)  # a new cache of the same size
    assert counter.frame_count == 2


def test_fixed_size_steps_do_not_recompile():
    model = ours(make_reference(), "fixed_size").model
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    cache = model.allocate_kv_cache(2, 3, 12 * PATCH, "cpu", torch.float32)
    series = random_series(patches=12)
    counts = []
    with torch.no_grad():
        for patches in range(5, 13):
            part = series[..., : patches * PATCH].contiguous()
            compiled(part, **masks(part, "plain"), kv_cache=cache, scaling_prefix_length=5 * PATCH)
            counts.append(counter.frame_count)
    assert counts[2:] == [counts[2]] * len(counts[2:])


def test_fixed_size_samples_compiled():
    model = ours(make_reference(), "fixed_size").model
    series = random_series()
    call: dict[str, Any] = {
        "prediction_length": 2 * PATCH,
        "num_samples": 4,
        "sampling_batch_size": 2,
        "use_kv_cache": True,
    }
    torch.manual_seed(5)
    expected = TotoForecaster(model).generate_samples(series, **call, **times(series))
    torch._dynamo.reset()
    compiled = TotoForecaster(torch.compile(model, fullgraph=True, backend="eager"))
    torch.manual_seed(5)
    found = compiled.generate_samples(series, **call, **times(series))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
