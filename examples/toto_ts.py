"""The published package, unedited: ``pip install toto-ts==0.2.0``.

A Toto 1.0 of four small layers with random weights forecasts twice with its key/value cache, in eager and compiled with
kvfix. ``--compiler inductor`` generates code, which takes about a minute on a CPU.
"""

import argparse
import warnings

import torch

warnings.filterwarnings("ignore", module=r"toto\b|rotary_embedding_torch|gluonts")

from toto.inference.forecaster import TotoForecaster  # noqa: E402
from toto.model.toto import Toto  # noqa: E402

import fxpass  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--compiler", choices=["eager", "aot_eager", "inductor"], default="eager")
options = parser.parse_args()

torch.manual_seed(0)
model = Toto(
    patch_size=8,
    stride=8,
    embed_dim=32,
    num_layers=4,
    num_heads=4,
    mlp_hidden_dim=64,
    dropout=0.0,
    spacewise_every_n_layers=4,
    spacewise_first=False,
    scaler_cls="<class 'model.scaler.CausalPatchStdMeanScaler'>",
    output_distribution_classes=["<class 'model.distribution.MixtureOfStudentTsOutput'>"],
    output_distribution_kwargs={"k_components": 3},
    use_memory_efficient_attention=False,
).eval()
forecaster = TotoForecaster(model.model)


def forecast(seed: int) -> torch.Tensor:
    """64 steps after 64 steps of three random walks."""
    series = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(seed)).cumsum(-1)
    return forecaster.generate_mean(
        inputs=series,
        prediction_length=64,
        timestamp_seconds=torch.zeros(1, 3, 64, dtype=torch.int),
        time_interval_seconds=torch.ones(1, 3, dtype=torch.int),
        use_kv_cache=True,
    )


expected = [forecast(seed) for seed in (1, 2)]
model.model.forward = torch.compile(
    model.model.forward, backend="kvfix", fullgraph=True, options={"compiler": options.compiler}
)
found = [forecast(seed) for seed in (1, 2)]

largest = max((f - e).abs().max().item() for f, e in zip(found, expected, strict=True))
print(f"max difference from eager: {largest:.1e}")
print(f"graphs: {len(fxpass.reports())} (prefill and decode); breaks: 0, or fullgraph=True would have raised\n")
print(fxpass.reports()[-1])
assert largest < 1e-5
