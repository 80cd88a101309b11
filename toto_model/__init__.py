"""An implementation of Datadog's Toto 1.0 time-series model, with a choice of key/value caches.

The weights, outputs and samples are those of ``toto-ts`` 0.2.0, so the two can exchange state dicts.  Training
(losses, schedulers, data modules) and the xFormers kernels of that package are left out; exogenous variates and
variate labels are supported.

    model = Toto.from_pretrained("Datadog/Toto-Open-Base-1.0", kv_cache="fixed_size")
    forecast = TotoForecaster(model.model).forecast(series, prediction_length=336, num_samples=256)
"""

from __future__ import annotations

from toto_model.backbone import TotoBackbone, TotoOutput
from toto_model.cache import CACHES, KVCache
from toto_model.config import TotoConfig
from toto_model.data import MaskedTimeseries
from toto_model.forecaster import Forecast, TotoForecaster
from toto_model.toto import Toto, unfused_state_dict

__all__ = [
    "CACHES",
    "Forecast",
    "KVCache",
    "MaskedTimeseries",
    "Toto",
    "TotoBackbone",
    "TotoConfig",
    "TotoForecaster",
    "TotoOutput",
    "unfused_state_dict",
]
