"""The rows of the benchmark: which model, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from toto_model.bench.hand import HandEdit
from toto_model.config import TotoConfig
from toto_model.toto import Toto

PUBLISHED = "toto-ts"
EAGER, STOCK, REDUCE, KVFIX, HAND = "eager", "stock", "reduce-overhead", "kvfix", "hand"
KEPT = "kvfix-kept"
"""kvfix with torch's precompile cache on: what one process compiles, the next one loads."""


@dataclass(frozen=True)
class Approach:
    """``model`` is the published package or one of our caches; ``how`` is eager, a way to compile, or the hand edit."""

    model: str
    how: str

    @property
    def name(self) -> str:
        return f"{self.model} {self.how}"


REFERENCE = Approach(PUBLISHED, EAGER)
"""What the others are compared with."""

YARDSTICK = Approach("fixed_size", HAND)

APPROACHES = (
    REFERENCE,
    Approach(PUBLISHED, STOCK),
    Approach(PUBLISHED, REDUCE),
    Approach(PUBLISHED, KVFIX),
    Approach(PUBLISHED, KEPT),
    *(Approach(cache, how) for cache in ("baseline", "compile_friendly", "upstream") for how in (REDUCE, KVFIX)),
    Approach("fixed_size", REDUCE),
    YARDSTICK,
)


def make(approach: Approach, config: TotoConfig, device: str) -> tuple[Any, Any]:
    """The model of ``approach``, not compiled, and the published forecaster for it; all models have the same random weights.

    One forecaster for all: a call of the model that follows a millisecond of somebody else's launches starts on a device
    that is idle, and one that follows little on a device that still works.

    Raises:
        ImportError: the published package is not installed.
    """
    from toto.inference.forecaster import TotoForecaster

    torch.manual_seed(0)
    weights = Toto(config)
    if approach.model == PUBLISHED:
        from toto.model import toto

        whole = toto.Toto(**config.to_dict())
    else:
        whole = Toto(config, approach.model)
    whole.load_state_dict(weights.state_dict(), strict=True)
    model = whole.to(device).eval().model
    return model, TotoForecaster(model)


def compiled(approach: Approach, model: Any, backend: str) -> Any:
    """``model``'s forward as the approach runs it; ``backend`` stands where a user has Inductor."""
    if approach.how == EAGER:
        return model.forward
    if approach.how == HAND:
        return HandEdit(model, backend)
    if approach.how in (KVFIX, KEPT):
        return torch.compile(model.forward, backend="kvfix", options={"compiler": backend})
    mode = "reduce-overhead" if approach.how == REDUCE and backend == "inductor" else None
    return torch.compile(model.forward, backend=backend, mode=mode)
