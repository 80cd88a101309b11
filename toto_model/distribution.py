"""Output heads: from the features of each time step to a distribution of its value."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, StudentT


def _positive(x: Tensor) -> Tensor:
    return F.softplus(x).clamp_min(torch.finfo(x.dtype).eps)


class StudentTOutput(nn.Module):
    """A single Student-t: (batch, variates, time, embed_dim) -> distribution of shape (batch, variates, time)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.df = nn.Linear(embed_dim, 1)
        self.loc_proj = nn.Linear(embed_dim, 1)
        self.scale_proj = nn.Linear(embed_dim, 1)

    def forward(self, x: Tensor) -> Distribution:
        df, loc, scale = 2.0 + _positive(self.df(x)), self.loc_proj(x), _positive(self.scale_proj(x))
        return StudentT(df.squeeze(-1), loc.squeeze(-1), scale.squeeze(-1), validate_args=False)


class MixtureOfStudentTsOutput(nn.Module):
    """A mixture of ``k_components`` Student-ts, with the shapes of ``StudentTOutput``.

    Raises (on call):
        ValueError: the features hold NaNs (from the argument check of ``torch.distributions``).
    """

    def __init__(self, embed_dim: int, k_components: int) -> None:
        super().__init__()
        self.df = nn.Linear(embed_dim, k_components)
        self.loc_proj = nn.Linear(embed_dim, k_components)
        self.scale_proj = nn.Linear(embed_dim, k_components)
        self.mixture_weights = nn.Linear(embed_dim, k_components)

    def forward(self, x: Tensor) -> Distribution:
        components = StudentT(2.0 + _positive(self.df(x)), self.loc_proj(x), _positive(self.scale_proj(x)))
        weights = Categorical(probs=self.mixture_weights(x).softmax(dim=-1))
        return MixtureSameFamily(weights, components)


OUTPUT_DISTRIBUTIONS: dict[str, type[nn.Module]] = {
    "<class 'model.distribution.StudentTOutput'>": StudentTOutput,
    "<class 'model.distribution.MixtureOfStudentTsOutput'>": MixtureOfStudentTsOutput,
}
