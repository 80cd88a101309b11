"""What kvfix has made of a decode step, as a page to click through: ``python examples/explain_html.py [FILE]``."""

import sys

import torch

import fxpass
from toto_model import MaskedTimeseries, Toto, TotoConfig, TotoForecaster

path = sys.argv[1] if len(sys.argv) > 1 else "explain.html"

torch.manual_seed(0)
model = Toto(TotoConfig.tiny(), kv_cache="upstream").model
series = torch.randn(3, 64).cumsum(-1)  # variates, time
inputs = MaskedTimeseries(series, torch.ones_like(series, dtype=torch.bool), None, series.long(), torch.ones(3))

# "eager" runs the rewritten graph as it is: enough to look at it.
compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"})
TotoForecaster(compiled).forecast(inputs, prediction_length=32)

fxpass.html(fxpass.reports(), path)
print(f"{path}: {', '.join(f'{report.name}, {report.rewritten} rewritten' for report in fxpass.reports())}")
