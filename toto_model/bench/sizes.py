"""What is forecast: how many series of what length, and how far."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class ForecastSize:
    """``variates`` series of ``context`` steps, ``horizon`` steps ahead: the mean path, or ``samples`` drawn paths."""

    variates: int
    context: int
    horizon: int
    samples: int | None = None

    def __str__(self) -> str:
        drawn = "" if self.samples is None else f"x{self.samples}"
        return f"{self.variates}x{self.context}-{self.horizon}{drawn}"

    @classmethod
    def parse(cls, text: str) -> ForecastSize:
        """``7x4096-1536``, or ``32x2048-512x8`` for eight samples.

        Raises:
            ValueError: neither of these.
        """
        match = re.fullmatch(r"(\d+)x(\d+)-(\d+)(?:x(\d+))?", text)
        if match is None:
            raise ValueError(
                f"no size {text!r}: write VARIATESxCONTEXT-HORIZON, as in 7x4096-1536, or ...-512x8 for samples"
            )
        variates, context, horizon, samples = match.groups()
        return cls(int(variates), int(context), int(horizon), None if samples is None else int(samples))

    def series(self, device: str) -> dict[str, torch.Tensor]:
        """Random walks and their timestamps, as the forecaster takes them; the same ones on every machine."""
        shape = (1, self.variates, self.context)
        walk = torch.randn(shape, generator=torch.Generator().manual_seed(1)).cumsum(-1)
        return {
            "inputs": walk.to(device),
            "timestamp_seconds": torch.zeros(shape, dtype=torch.int, device=device),
            "time_interval_seconds": torch.ones(shape[:2], dtype=torch.int, device=device),
        }

    def forecast(self, forecaster: Any, series: dict[str, torch.Tensor]) -> torch.Tensor:
        """One forecast with a key/value cache; samples come from a fixed seed."""
        asked: dict[str, Any] = {**series, "prediction_length": self.horizon, "use_kv_cache": True}
        if self.samples is None:
            return forecaster.generate_mean(**asked)
        torch.manual_seed(2)
        return forecaster.generate_samples(**asked, num_samples=self.samples, sampling_batch_size=self.samples)
