"""Input scalers.  All compute their statistics without gradients and in double precision where the device has it."""

from __future__ import annotations

import torch
from torch import Tensor


def _high_precision(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def _prefix_weights(weights: Tensor, prefix_length: int | None) -> Tensor:
    """Zero the weights (..., time) at and after ``prefix_length``."""
    if prefix_length is None:
        return weights
    return weights * (torch.arange(weights.shape[-1], device=weights.device) < prefix_length)


def _moments(x: Tensor, weights: Tensor, minimum_scale: float) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation of ``x`` (..., time), each (..., 1)."""
    count = weights.sum(-1, keepdim=True).clamp_min(1.0)
    mean = torch.nan_to_num((x * weights).sum(-1, keepdim=True) / count)
    variance = (((x - mean) * weights) ** 2).sum(-1, keepdim=True) / count
    return mean, torch.sqrt(variance + minimum_scale)


class StdMeanScaler:
    """Scales each variate by the mean and standard deviation of its valid steps."""

    minimum_scale = 1e-3

    def __call__(
        self, data: Tensor, padding_mask: Tensor, prefix_length: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scale ``data`` (batch, variates, time); ``padding_mask`` has its shape and is True at valid steps.

        With ``prefix_length`` only the first so many steps are measured.  Returns the scaled data, and its location
        and scale of shape (batch, variates, 1), all in the dtype of ``data``.
        """
        with torch.no_grad():
            x = _high_precision(data)
            weights = _prefix_weights(padding_mask.to(x.dtype), prefix_length)
            loc, scale = (t.to(data.dtype) for t in _moments(x, weights, self.minimum_scale))
            return (data - loc) / scale, loc, scale


class CausalStdMeanScaler:
    """Scales each step by the running mean and standard deviation of the valid steps up to and including it.

    With ``stabilize_with_global`` the running scale is kept within a factor of ``10 ** scale_factor_exponent`` of the
    scale of the whole series, or of its first ``prefix_length`` steps while decoding.
    """

    minimum_scale = 0.1

    def __init__(self, stabilize_with_global: bool = False, scale_factor_exponent: float = 10.0) -> None:
        self.stabilize_with_global = stabilize_with_global
        self.scale_factor_exponent = scale_factor_exponent

    def statistics(self, data: Tensor, padding_mask: Tensor, prefix_length: int | None) -> tuple[Tensor, Tensor]:
        """Running location and scale of ``data`` (batch, variates, time), both of its shape and dtype."""
        x = _high_precision(data)
        weights = padding_mask.to(x.dtype)
        count = weights.cumsum(-1).clamp_min(1.0)
        mean = (weights * x).cumsum(-1) / count

        # Welford: each step adds (x_t - mean_{t-1}) * (x_t - mean_t) to the sum of squared deviations.
        previous_mean = torch.cat((torch.zeros_like(mean[..., :1]), mean[..., :-1]), dim=-1)
        deviations = ((x - previous_mean) * (x - mean) * weights).cumsum(-1)
        scale = torch.sqrt(deviations / (count - 1.0).clamp_min(1.0) + self.minimum_scale)

        if self.stabilize_with_global:
            _, global_scale = _moments(x, _prefix_weights(weights, prefix_length), self.minimum_scale)
            factor = 10.0**self.scale_factor_exponent
            lowest = (global_scale / factor).clamp_min(self.minimum_scale)
            scale = torch.clamp(scale, min=lowest, max=global_scale * factor)
        return mean.to(data.dtype), scale.to(data.dtype)

    def __call__(
        self, data: Tensor, padding_mask: Tensor, prefix_length: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scale ``data`` (batch, variates, time); ``padding_mask`` has its shape and is True at valid steps.

        Returns the scaled data and its location and scale, all of the shape and dtype of ``data``.
        """
        with torch.no_grad():
            loc, scale = self.statistics(data, padding_mask, prefix_length)
            return (data - loc) / scale, loc, scale


class CausalPatchStdMeanScaler(CausalStdMeanScaler):
    """As ``CausalStdMeanScaler``, but all steps of a patch share the statistics of the patch's last step.

    Raises (on call):
        AssertionError: the number of steps is no multiple of ``patch_size``.
    """

    def __init__(
        self, patch_size: int = 32, stabilize_with_global: bool = False, scale_factor_exponent: float = 10.0
    ) -> None:
        super().__init__(stabilize_with_global, scale_factor_exponent)
        self.patch_size = patch_size

    def statistics(self, data: Tensor, padding_mask: Tensor, prefix_length: int | None) -> tuple[Tensor, Tensor]:
        assert data.shape[-1] % self.patch_size == 0, (
            f"series length {data.shape[-1]} is not a multiple of the patch size {self.patch_size}"
        )
        loc, scale = super().statistics(data, padding_mask, prefix_length)
        return self._last_of_patch(loc), self._last_of_patch(scale)

    def _last_of_patch(self, x: Tensor) -> Tensor:
        last = x[..., self.patch_size - 1 :: self.patch_size]
        return last.repeat_interleave(self.patch_size, dim=-1)


Scaler = StdMeanScaler | CausalStdMeanScaler

SCALERS: dict[str, type[Scaler]] = {
    "<class 'model.scaler.StdMeanScaler'>": StdMeanScaler,
    "<class 'model.scaler.CausalStdMeanScaler'>": CausalStdMeanScaler,
    "<class 'model.scaler.CausalPatchStdMeanScaler'>": CausalPatchStdMeanScaler,
}


def make_scaler(name: str, patch_size: int, stabilize_with_global: bool, scale_factor_exponent: float) -> Scaler:
    """The scaler for a configuration's ``scaler_cls``; only the patch scaler takes the other arguments."""
    cls = SCALERS[name]
    if cls is CausalPatchStdMeanScaler:
        return CausalPatchStdMeanScaler(patch_size, stabilize_with_global, scale_factor_exponent)
    return cls()
