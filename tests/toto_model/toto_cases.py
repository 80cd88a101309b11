"""A small random model of the published package, and inputs for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from toto.model.toto import Toto as ReferenceToto

from toto_model import Toto, TotoConfig

CONFIG = TotoConfig.tiny()
PATCH = CONFIG.patch_size


def make_reference(**changes: Any) -> ReferenceToto:
    """The package's model of the tiny configuration, with random weights that depend on nothing else."""
    torch.manual_seed(0)
    return ReferenceToto(**replace(CONFIG, **changes).to_dict()).eval()


def ours(reference: ReferenceToto, kv_cache: str = "upstream", **changes: Any) -> Toto:
    """Our model with the weights of ``reference``."""
    model = Toto(replace(CONFIG, **changes), kv_cache)
    if reference.model.num_prepended_tokens:
        model.model.enable_variate_labels()
    model.load_state_dict(reference.state_dict(), strict=True)
    return model.eval()


def random_series(batch: int = 2, variates: int = 3, patches: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, variates, patches * PATCH, generator=generator).cumsum(-1)


def masks(series: torch.Tensor, kind: str) -> dict[str, torch.Tensor]:
    """Padding and id masks: all valid in one group, or left padding, holes and two groups that change in time."""
    padding = torch.ones_like(series, dtype=torch.bool)
    ids = torch.zeros_like(series, dtype=torch.int)
    if kind == "mixed":
        padding[0, :, : PATCH + 3] = False
        padding[1, 1, 2 * PATCH : 2 * PATCH + 5] = False
        ids[:, 2] = 1
        ids[1, :, : 2 * PATCH] += 2
        ids[1, 0, : 2 * PATCH] = 7
    return {"input_padding_mask": padding, "id_mask": ids}


def times(series: torch.Tensor) -> dict[str, torch.Tensor]:
    """The timestamps that the forecaster's methods ask for."""
    return {
        "timestamp_seconds": torch.zeros_like(series, dtype=torch.int),
        "time_interval_seconds": torch.ones(series.shape[:2], dtype=torch.int),
    }
