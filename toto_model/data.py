"""Input series and their padding."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class MaskedTimeseries(NamedTuple):
    """A multivariate series, or a batch of them when every tensor has a leading batch dimension.

    Attributes:
        series: (variates, time), floating point.
        padding_mask: (variates, time), boolean, True at valid steps.
        id_mask: (variates or 1, time), integer; variates with the same number see each other.
        timestamp_seconds: (variates, time), integer; the model does not read it.
        time_interval_seconds: (variates,), integer; the model does not read it.
        num_exogenous_variables: how many of the last variates are exogenous.
    """

    series: Tensor
    padding_mask: Tensor
    id_mask: Tensor | None
    timestamp_seconds: Tensor
    time_interval_seconds: Tensor
    num_exogenous_variables: int = 0

    def to(self, device: torch.device | str) -> MaskedTimeseries:
        """The same series with every tensor on ``device``."""
        return MaskedTimeseries._make(t.to(device) if isinstance(t, Tensor) else t for t in self)


def pad_to_patches(x: Tensor, patch: int, repeat_edge: bool = False) -> Tensor:
    """Pad (..., time) on the left to a multiple of ``patch``, with zeros (False) or with the first step's value."""
    missing = -x.shape[-1] % patch
    if repeat_edge:
        return torch.cat((x[..., :1].expand(*x.shape[:-1], missing), x), dim=-1)
    return F.pad(x, (missing, 0))


def replace_extreme_values(x: Tensor, replacement: float = 0.0) -> Tensor:
    """Replace NaNs, infinities and values beyond half of the dtype's range, keeping shape and dtype."""
    acceptable = x.abs() < torch.finfo(x.dtype).max / 2
    return torch.where(acceptable, x, replacement)
