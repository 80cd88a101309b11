"""A small Toto model with the cache of the published package: eager and kvfix side by side."""

import torch

import fxpass
from toto_model import MaskedTimeseries, Toto, TotoConfig, TotoForecaster

torch.manual_seed(0)
model = Toto(TotoConfig.tiny(), kv_cache="upstream").model
series = torch.randn(3, 64).cumsum(-1)  # variates, time
inputs = MaskedTimeseries(series, torch.ones_like(series, dtype=torch.bool), None, series.long(), torch.ones(3))

expected = TotoForecaster(model).forecast(inputs, prediction_length=64).mean
# "eager" runs the rewritten graph as it is; leave the options out to have Inductor compile it.
compiled = torch.compile(model, backend="kvfix", fullgraph=True, options={"compiler": "eager"})
found = TotoForecaster(compiled).forecast(inputs, prediction_length=64).mean

print(f"max difference from eager: {(found - expected).abs().max():.1e}\n")
for report in fxpass.reports():
    print(report, "\n")
torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
