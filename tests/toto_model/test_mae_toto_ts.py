"""The real toto-ts 0.2.0, unedited, decoding with its key/value cache: few graphs, no break, eager's numbers."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from typing import Any

import pytest
import torch
from compilations import parts_compiled
from small_models import breaks, graphs, kvfix, relative_close
from toto.inference.forecaster import TotoForecaster
from toto.model.toto import Toto

import fxpass

PATCH, VARIATES, PATTERNS = 8, 3, 14
CONTEXTS_AND_HORIZONS = [
    (64, 32), (64, 32), (96, 32), (96, 16), (48, 32), (48, 16), (64, 16), (96, 48), (40, 16), (128, 32),
]  # fmt: skip
"""More sizes of the cache than Dynamo would compile for."""


def make_toto(layers: int = 2, spacewise: int = 2) -> Toto:
    """Some layers, each ``spacewise``-th one space-wise, random weights."""
    torch.manual_seed(0)
    return Toto(
        patch_size=PATCH,
        stride=PATCH,
        embed_dim=32,
        num_layers=layers,
        num_heads=4,
        mlp_hidden_dim=64,
        dropout=0.0,
        spacewise_every_n_layers=spacewise,
        scaler_cls="<class 'model.scaler.CausalPatchStdMeanScaler'>",
        output_distribution_classes=["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
        spacewise_first=False,
        output_distribution_kwargs={"k_components": 3},
        use_memory_efficient_attention=False,
    ).eval()


class Recorder:
    """A model that notes its cache's whole state after every step."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.states: list[dict[str, torch.Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, *args: Any, kv_cache: Any, **kwargs: Any) -> Any:
        out = self.model(*args, kv_cache=kv_cache, **kwargs)
        names = ("_keys", "_values", "_current_idx", "_layer_cache_map")
        self.states.append({name: getattr(kv_cache, name).clone() for name in names})
        return out


def forecast(model: Any, kind: str, context: int, horizon: int, seed: int, variates: int = VARIATES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    call: dict[str, Any] = {
        "inputs": torch.randn(1, variates, context, generator=generator).cumsum(-1),
        "prediction_length": horizon,
        "timestamp_seconds": torch.zeros(1, variates, context, dtype=torch.int),
        "time_interval_seconds": torch.ones(1, variates, dtype=torch.int),
        "use_kv_cache": True,
    }
    torch.manual_seed(seed)
    if kind == "mean":
        return TotoForecaster(model).generate_mean(**call)
    return TotoForecaster(model).generate_samples(**call, num_samples=4, sampling_batch_size=2)


def compare(
    eager: Recorder, compiled: Recorder, kind: str, context: int, horizon: int, seed: int, variates: int = VARIATES
) -> None:
    """One forecast on both sides: MAE, maximum, and the cache after every step."""
    eager.states.clear()
    compiled.states.clear()
    expected = forecast(eager, kind, context, horizon, seed, variates)
    found = forecast(compiled, kind, context, horizon, seed, variates)
    relative_close(found, expected)
    batches = 1 if kind == "mean" else 2
    assert len(compiled.states) == len(eager.states) == batches * horizon // PATCH
    for step, (mine, theirs) in enumerate(zip(compiled.states, eager.states, strict=True)):
        same_state(f"step {step}", mine, theirs)


def same_state(what: str, mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Index tensors and unwritten rows bitwise; written rows within 1e-6.

    The rows are projections of what earlier layers computed, and a masked softmax over all rows sums in another order
    than one over the valid rows. Where that plays no part the write is bitwise: see tests/index_tensors/test_steady_decode.py.
    """
    for name in ("_current_idx", "_layer_cache_map"):
        assert torch.equal(mine[name], theirs[name]), f"{what}: {name}"
    end = int(theirs["_current_idx"].max())
    for name in ("_keys", "_values"):
        said = f"{what}: {name}"
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-6, atol=1e-6, msg=said)
        assert torch.equal(mine[name][:, :, :, end:], theirs[name][:, :, :, end:]), f"{what}: {name} past its end"


@pytest.mark.parametrize("kind", ["mean", "samples"])
def test_ten_forecasts(kind: str):
    assert version("toto-ts") == "0.2.0"
    model = make_toto().model
    eager, compiled = Recorder(model), Recorder(kvfix(model))
    made = []
    with parts_compiled(least=64) as parts:
        for seed, (context, horizon) in enumerate(CONTEXTS_AND_HORIZONS):
            compare(eager, compiled, kind, context, horizon, seed)
            made.append(graphs())
    assert made[:2] == [2, 2]
    assert made[2] <= 3
    assert made[2:] == [made[2]] * 8
    assert parts == ["core"] * 2  # of one capacity of the cache, and of any
    assert breaks() == 0
    assert sum(r.refused for r in fxpass.reports()) == 0 and not any(r.unfit for r in fxpass.reports())
    assert len(fxpass.reports()) == made[-1]


def test_steady_decode_reads_nothing(traced: Counter[str]):
    """Two forecasts compile, of which nothing is traced twice, and a pattern of einops once in a graph; in later ones no decode
    step reads an index tensor, only each new cache's first look."""
    model = make_toto().model
    compiled = Recorder(kvfix(model))
    for seed in range(2):
        forecast(compiled, "mean", 64, 32, seed)
    assert traced["frame"] == graphs() == 2 and traced["_prepare_transformation_recipe"] <= 2 * PATTERNS
    reads = []
    for horizon in (64, 16):
        before = fxpass.reports()[-1].host_reads
        forecast(compiled, "mean", 64, horizon, 3)
        reads.append(fxpass.reports()[-1].host_reads - before)
    assert reads[0] == reads[1] == 2  # one for each of the two index tensors of a new cache


@pytest.mark.inductor
@pytest.mark.parametrize("kind", ["samples"])
def test_through_inductor(kind: str):
    """The default compiler; one context length and capacity, since the core is compiled for each."""
    model = make_toto().model
    eager, compiled = Recorder(model), Recorder(kvfix(model, "inductor"))
    for seed in range(2):
        compare(eager, compiled, kind, 64, 32, seed)
    assert (graphs(), breaks()) == (2, 0)


@pytest.mark.packages
@pytest.mark.parametrize("dynamic", [True, False])
def test_other_models_and_variates(dynamic: bool):
    """What `torch.compile` is told, another model, another number of variates: two graphs at most, one core."""
    for layers, variates in ((2, 2), (3, 3)):
        made = graphs()
        model = make_toto(layers, layers).model
        compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"}, dynamic=dynamic)
        compare(Recorder(model), Recorder(compiled), "mean", 32, 24, 0, variates)
        assert graphs() - made <= 2 and not breaks()
        report = fxpass.reports()[-1]
        assert report.rewritten == 3 + 6 * (layers - 1) and not report.refused and not report.unfit
        assert [(name, static) for name, static, _ in report.parts] == [("core", True)]
