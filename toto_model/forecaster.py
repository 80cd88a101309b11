"""Autoregressive forecasting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from toto_model.backbone import TotoBackbone
from toto_model.cache import KVCache
from toto_model.data import MaskedTimeseries, pad_to_patches, replace_extreme_values


@dataclass(frozen=True)
class Forecast:
    """A forecast: ``mean`` (batch, variates, steps) and, if drawn, ``samples`` (batch, variates, steps, samples)."""

    mean: Tensor
    samples: Tensor | None = None

    def _drawn(self) -> Tensor:
        if self.samples is None:
            raise ValueError("this forecast has no samples: give num_samples to forecast()")
        return self.samples

    def quantile(self, q: float | Tensor) -> Tensor:
        """Quantile of the samples at each step, (batch, variates, steps); ValueError without samples."""
        samples = self._drawn()
        return samples.quantile(torch.as_tensor(q, device=samples.device, dtype=samples.dtype), dim=-1)

    @property
    def median(self) -> Tensor:
        """Median of the samples, (batch, variates, steps); ValueError without samples."""
        return self.quantile(0.5)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the samples, (batch, variates, steps); ValueError without samples."""
        return self._drawn().std(dim=-1)


def _draw_mean(distribution: Distribution) -> Tensor:
    return distribution.mean


def _draw_sample(distribution: Distribution) -> Tensor:
    return distribution.sample()


class TotoForecaster:
    """Forecasts by feeding the model's own predictions back into it, one patch at a time.

    The last variates of a series may be exogenous: their known future replaces what the model predicts for them.

    Args:
        model: the backbone (``Toto(...).model``) or a ``torch.compile`` of it; it is put in evaluation mode.

    Raises:
        ValueError: the model's patches overlap or leave gaps (``stride`` differs from ``patch_size``).
    """

    def __init__(self, model: TotoBackbone) -> None:
        self.model = model
        self.model.eval()
        self.patch = model.patch_embed.patch_size
        if model.patch_embed.stride != self.patch:
            raise ValueError(f"cannot decode with stride {model.patch_embed.stride} and patches of {self.patch}")

    def forecast(
        self,
        inputs: MaskedTimeseries,
        prediction_length: int,
        num_samples: int | None = None,
        samples_per_batch: int = 10,
        use_kv_cache: bool = True,
        future_exogenous_variables: Tensor | None = None,
    ) -> Forecast:
        """Forecast a series of any length, or a batch of them.

        Args:
            inputs: the series; padded on the left to whole patches.
            prediction_length: steps to forecast.
            num_samples: trajectories to draw.  None gives the mean path only.
            samples_per_batch: trajectories decoded together; must divide ``num_samples``.
            use_kv_cache: keep keys and values between steps.
            future_exogenous_variables: (batch, exogenous, prediction_length), or without batch.

        Raises:
            ValueError: the future of the exogenous variates has the wrong shape, or ``num_samples`` is not a multiple
                of ``samples_per_batch``.
        """
        if inputs.series.ndim == 2:
            inputs = MaskedTimeseries._make(t[None] if isinstance(t, Tensor) else t for t in inputs)
        if future_exogenous_variables is not None and future_exogenous_variables.ndim == 2:
            future_exogenous_variables = future_exogenous_variables[None]
        id_mask = inputs.id_mask
        series = pad_to_patches(inputs.series, self.patch)
        timestamps = pad_to_patches(inputs.timestamp_seconds, self.patch)
        padding_mask = pad_to_patches(inputs.padding_mask, self.patch)
        id_mask = None if id_mask is None else pad_to_patches(id_mask, self.patch, repeat_edge=True)
        if num_samples is None:
            mean = self.generate_mean(
                series,
                prediction_length,
                timestamps,
                inputs.time_interval_seconds,
                padding_mask,
                id_mask,
                use_kv_cache,
                future_exogenous_variables,
                inputs.num_exogenous_variables,
            )
            return Forecast(mean)
        samples = self.generate_samples(
            series,
            prediction_length,
            num_samples,
            timestamps,
            inputs.time_interval_seconds,
            padding_mask,
            id_mask,
            samples_per_batch,
            use_kv_cache,
            future_exogenous_variables,
            inputs.num_exogenous_variables,
        )
        return Forecast(samples.mean(dim=-1), samples)

    @torch.no_grad()
    def generate_mean(
        self,
        inputs: Tensor,
        prediction_length: int,
        timestamp_seconds: Tensor,
        time_interval_seconds: Tensor,
        input_padding_mask: Tensor | None = None,
        id_mask: Tensor | None = None,
        use_kv_cache: bool = False,
        future_exogenous_variables: Tensor | None = None,
        num_exogenous_variables: int = 0,
    ) -> Tensor:
        """Decode by taking the mean of the output distribution at each step.

        Args:
            inputs: (batch, variates, time), time a multiple of the patch size.
            timestamp_seconds, time_interval_seconds: (batch, variates, time) and (batch, variates), unused.
            input_padding_mask: boolean, of the shape of ``inputs``, True at valid steps; all valid by default.
            id_mask: (batch, variates or 1, time), integer; one group by default.
            future_exogenous_variables: (batch, num_exogenous_variables, prediction_length).

        Returns:
            (batch, variates, prediction_length), in the dtype of ``inputs``.

        Raises:
            ValueError: ``future_exogenous_variables`` has the wrong shape.
        """
        padding_mask, id_mask = self._masks(inputs, input_padding_mask, id_mask)
        steps = ceil(prediction_length / self.patch)
        future = self._whole_patches(
            future_exogenous_variables, (inputs.shape[0], num_exogenous_variables, prediction_length), steps
        )
        cache = self._cache_for(inputs, steps) if use_kv_cache else None
        series = self._decode(inputs, padding_mask, id_mask, steps, _draw_mean, cache, future, num_exogenous_variables)
        return series[:, :, inputs.shape[-1] : inputs.shape[-1] + prediction_length]

    @torch.no_grad()
    def generate_samples(
        self,
        inputs: Tensor,
        prediction_length: int,
        num_samples: int,
        timestamp_seconds: Tensor,
        time_interval_seconds: Tensor,
        input_padding_mask: Tensor | None = None,
        id_mask: Tensor | None = None,
        sampling_batch_size: int = 10,
        use_kv_cache: bool = False,
        future_exogenous_variables: Tensor | None = None,
        num_exogenous_variables: int = 0,
    ) -> Tensor:
        """Decode ``num_samples`` independent trajectories, ``sampling_batch_size`` of them at a time.

        The other arguments are those of ``generate_mean``.

        Returns:
            (batch, variates, prediction_length, num_samples), in the dtype of ``inputs``.

        Raises:
            ValueError: ``future_exogenous_variables`` has the wrong shape, or ``num_samples`` is not a multiple of
                ``sampling_batch_size``.
        """
        if num_samples % sampling_batch_size:
            raise ValueError(f"num_samples ({num_samples}) is not a multiple of {sampling_batch_size}")
        padding_mask, id_mask = self._masks(inputs, input_padding_mask, id_mask)
        steps = ceil(prediction_length / self.patch)
        future = self._whole_patches(
            future_exogenous_variables, (inputs.shape[0], num_exogenous_variables, prediction_length), steps
        )
        copies = (sampling_batch_size, 1, 1)
        repeated = inputs.repeat(copies)
        padding_mask, id_mask = padding_mask.repeat(copies), id_mask.repeat(copies)
        future = None if future is None else future.repeat(copies)
        cache = self._cache_for(repeated, steps) if use_kv_cache else None

        drawn = []
        for _ in range(num_samples // sampling_batch_size):
            drawn.append(
                self._decode(
                    repeated, padding_mask, id_mask, steps, _draw_sample, cache, future, num_exogenous_variables
                )
            )
            if cache is not None:
                cache.reset()
        series = torch.cat(drawn).unflatten(0, (num_samples, inputs.shape[0])).permute(1, 2, 3, 0)
        return series[:, :, inputs.shape[-1] : inputs.shape[-1] + prediction_length]

    def _decode(
        self,
        series: Tensor,
        padding_mask: Tensor,
        id_mask: Tensor,
        steps: int,
        draw: Callable[[Distribution], Tensor],
        kv_cache: KVCache | None,
        future: Tensor | None,
        num_exogenous_variables: int,
    ) -> Tensor:
        """Extend ``series`` (batch, variates, time) by ``steps`` patches and return it whole."""
        prefix_length = series.shape[-1]
        new_padding = torch.ones_like(padding_mask[:, :, : self.patch])
        new_ids = id_mask[:, :, -1:].expand(-1, -1, self.patch)
        for step in range(steps):
            distribution, loc, scale = self.model(
                inputs=series,
                input_padding_mask=padding_mask,
                id_mask=id_mask,
                kv_cache=kv_cache,
                scaling_prefix_length=prefix_length,
                num_exogenous_variables=num_exogenous_variables,
            )
            # The whole distribution is drawn, so that a seed gives the same samples whatever part of it is used.
            values = draw(distribution)
            new = values.shape[-1]
            values = (values * scale[..., -new:] + loc[..., -new:])[:, :, -self.patch :]
            patch = replace_extreme_values(values)
            if future is not None and num_exogenous_variables > 0:
                patch[:, -num_exogenous_variables:] = future[:, :, step * self.patch : (step + 1) * self.patch]
            series = torch.cat((series, patch), dim=-1)
            id_mask = torch.cat((id_mask, new_ids), dim=-1)
            padding_mask = torch.cat((padding_mask, new_padding), dim=-1)
        return series

    def _cache_for(self, series: Tensor, steps: int) -> KVCache:
        """A cache that holds ``series`` (batch, variates, time) and ``steps`` further patches."""
        batch, variates, time = series.shape
        return self.model.allocate_kv_cache(batch, variates, time + steps * self.patch, series.device, series.dtype)

    @staticmethod
    def _masks(inputs: Tensor, padding_mask: Tensor | None, id_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The given masks, or those of a series that is all valid and in one group."""
        if padding_mask is None:
            padding_mask = torch.ones_like(inputs, dtype=torch.bool)
        if id_mask is None:
            id_mask = torch.zeros_like(inputs, dtype=torch.int)
        return padding_mask, id_mask

    def _whole_patches(self, future: Tensor | None, shape: tuple[int, int, int], steps: int) -> Tensor | None:
        """``future`` padded with zeros on the right to ``steps`` patches; ValueError unless it has ``shape``."""
        if future is None:
            return None
        if tuple(future.shape) != shape:
            raise ValueError(f"future_exogenous_variables has shape {tuple(future.shape)}, expected {shape}")
        return F.pad(future, (0, steps * self.patch - shape[-1]))
