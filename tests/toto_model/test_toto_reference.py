"""Agreement with the published package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toto.data.util.dataset import MaskedTimeseries as ReferenceTimeseries
from toto.inference.forecaster import TotoForecaster as ReferenceForecaster
from toto.model.toto import Toto as ReferenceToto
from toto_cases import CONFIG, PATCH, make_reference, masks, ours, random_series, times

from toto_model import CACHES, MaskedTimeseries, Toto, TotoConfig, TotoForecaster, unfused_state_dict

CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
# The fixed-size cache attends over a masked buffer: another kernel, so its last bits differ and then feed back.
CLOSE_FIXED: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def test_state_dict_both_ways():
    reference = make_reference()
    model = ours(reference)
    fresh = ReferenceToto(**CONFIG.to_dict())
    fresh.load_state_dict(model.state_dict(), strict=True)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)


def test_fused_names_are_understood():
    reference = make_reference()
    fused = ReferenceToto._map_state_dict_keys(reference.state_dict(), use_fused_swiglu=True)
    fused["model.transformer.rotary_emb.freqs"] = torch.zeros(4)  # found in older checkpoints
    assert any("w12" in name for name in fused)
    Toto(CONFIG).load_state_dict(unfused_state_dict(fused), strict=True)


def test_base_configuration_has_the_weights_of_the_package():
    with torch.device("meta"):
        reference = ReferenceToto(**TotoConfig.base().to_dict())
        model = Toto(TotoConfig.base())
    expected = {name: tensor.shape for name, tensor in reference.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == expected


@pytest.mark.parametrize("kind", ["plain", "mixed"])
@pytest.mark.parametrize("prefix_length", [None, 2 * PATCH])
def test_backbone(kind: str, prefix_length: int | None):
    reference = make_reference()
    series = random_series()
    call: dict[str, Any] = {"inputs": series, "scaling_prefix_length": prefix_length, **masks(series, kind)}
    with torch.no_grad():
        expected = reference.model.backbone(**call)
        found = ours(reference).model.backbone(**call)
        distribution = ours(reference)(**call).distribution
        expected_distribution = reference.model(**call).distribution
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    torch.testing.assert_close(distribution.mean, expected_distribution.mean, **CLOSE)
    torch.testing.assert_close(distribution.log_prob(series), expected_distribution.log_prob(series), **CLOSE)


@pytest.mark.parametrize(
    "changes",
    [
        {"scaler_cls": "<class 'model.scaler.StdMeanScaler'>"},
        {"scaler_cls": "<class 'model.scaler.CausalStdMeanScaler'>"},
        {"stabilize_with_global": False},
        {"scale_factor_exponent": 0.1},
        {"spacewise_first": True, "spacewise_every_n_layers": 2},
        {"spacewise_every_n_layers": -1},
        {
            "output_distribution_classes": ["<class 'model.distribution.StudentTOutput'>"],
            "output_distribution_kwargs": {},
        },
    ],
    ids=lambda changes: "-".join(changes),
)
def test_other_configurations(changes: dict):
    reference = make_reference(**changes)
    model = ours(reference, **changes)
    series = random_series()
    call: dict[str, Any] = {"prediction_length": 12, "use_kv_cache": True, **times(series), **masks(series, "mixed")}
    expected = ReferenceForecaster(reference.model).generate_mean(series, **call)
    torch.testing.assert_close(TotoForecaster(model.model).generate_mean(series, **call), expected, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(dtype: torch.dtype):
    reference = make_reference().to(dtype)
    model = ours(reference).to(dtype)
    series = random_series().to(dtype)
    call: dict[str, Any] = {"prediction_length": 12, "use_kv_cache": True, **times(series)}
    expected = ReferenceForecaster(reference.model).generate_mean(series, **call)
    found = TotoForecaster(model.model).generate_mean(series, **call)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["plain", "mixed"])
@pytest.mark.parametrize("kv_cache", [None, *CACHES])
def test_generate(kv_cache: str | None, kind: str):
    reference = make_reference()
    series = random_series()
    forecaster = TotoForecaster(ours(reference, kv_cache or "upstream").model)
    call: dict[str, Any] = {
        "prediction_length": 3 * PATCH - 3,
        "use_kv_cache": kv_cache is not None,
        **times(series),
        **masks(series, kind),
    }
    close = CLOSE_FIXED if kv_cache == "fixed_size" else CLOSE
    expected = ReferenceForecaster(reference.model).generate_mean(series, **call)
    torch.testing.assert_close(forecaster.generate_mean(series, **call), expected, **close)

    call |= {"num_samples": 4, "sampling_batch_size": 2}
    torch.manual_seed(5)
    expected = ReferenceForecaster(reference.model).generate_samples(series, **call)
    torch.manual_seed(5)
    torch.testing.assert_close(forecaster.generate_samples(series, **call), expected, **close)


@pytest.mark.parametrize("num_samples", [None, 4])
def test_forecast_pads_to_patches(num_samples: int | None):
    reference = make_reference()
    series = random_series()[0, :, 3:]
    fields: dict[str, Any] = {
        "series": series,
        "padding_mask": torch.ones_like(series, dtype=torch.bool),
        "id_mask": torch.tensor([0, 0, 1])[:, None].expand(-1, series.shape[-1]),
        "timestamp_seconds": torch.zeros_like(series, dtype=torch.int),
        "time_interval_seconds": torch.ones(3, dtype=torch.int),
    }
    call: dict[str, Any] = {"prediction_length": 11, "num_samples": num_samples, "samples_per_batch": 2}
    forecaster = TotoForecaster(ours(reference).model)
    torch.manual_seed(5)
    expected = ReferenceForecaster(reference.model).forecast(ReferenceTimeseries(**fields), **call)
    torch.manual_seed(5)
    found = forecaster.forecast(MaskedTimeseries(**fields), **call)
    torch.testing.assert_close(found.mean, expected.mean, **CLOSE)
    if num_samples is None:
        with pytest.raises(ValueError, match="num_samples"):
            found.quantile(0.9)
    else:
        for q in ("samples", "median", "std"):
            torch.testing.assert_close(getattr(found, q), getattr(expected, q), **CLOSE)
        torch.testing.assert_close(found.quantile(0.9), expected.quantile(0.9), **CLOSE)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("kv_cache", [None, *CACHES])
def test_exogenous_variates(kv_cache: str | None, labels: bool):
    reference = make_reference()
    if labels:
        reference.model.enable_variate_labels()
    forecaster = TotoForecaster(ours(reference, kv_cache or "upstream").model)
    series = random_series()
    future = torch.linspace(-1, 1, 2 * 20).reshape(2, 1, 20)
    call: dict[str, Any] = {
        "prediction_length": 20,
        "use_kv_cache": kv_cache is not None,
        "future_exogenous_variables": future,
        "num_exogenous_variables": 1,
        **times(series),
    }
    expected = ReferenceForecaster(reference.model).generate_mean(series, **call)
    found = forecaster.generate_mean(series, **call)
    torch.testing.assert_close(found, expected, **(CLOSE_FIXED if kv_cache == "fixed_size" else CLOSE))
    assert torch.equal(found[:, -1:], future)
    with pytest.raises(ValueError, match="future_exogenous_variables"):
        forecaster.generate_mean(series, **{**call, "num_exogenous_variables": 2})


def test_extreme_values_are_replaced():
    reference = make_reference()
    series = random_series()
    series[0, 0, 3] = 1e38
    call: dict[str, Any] = {"prediction_length": 12, "use_kv_cache": True, **times(series)}
    expected = ReferenceForecaster(reference.model).generate_mean(series, **call)
    found = TotoForecaster(ours(reference).model).generate_mean(series, **call)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, **CLOSE)
