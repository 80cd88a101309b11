"""Small building blocks: normalization, gated activation and patch embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square normalization over the last dimension, with a learned ``scale`` of shape (dim,)."""

    def __init__(self, dim: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + self.eps) * self.scale


class SwiGLU(nn.Module):
    """Gated SiLU: (..., 2 * hidden) -> (..., hidden), the first half being the gate."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value


class PatchEmbedding(nn.Module):
    """Cuts every variate into patches and projects each patch to the model's width."""

    def __init__(self, patch_size: int, stride: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stride = stride
        self.projection = nn.Linear(patch_size, embed_dim)

    def forward(self, x: Tensor, id_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embed the patches of a series.

        Args:
            x: (batch, variates, time), floating point.
            id_mask: (batch, variates or 1, time), group of each variate, constant within a patch.

        Returns:
            Embeddings (batch, variates, patches, embed_dim) and the group of each patch
            (batch, variates or 1, patches).

        Raises:
            AssertionError: the length is no multiple of the patch size, or a patch holds more than one group.
        """
        assert x.shape[-1] % self.patch_size == 0, (
            f"series length {x.shape[-1]} is not a multiple of the patch size {self.patch_size}"
        )
        ids = id_mask.unfold(-1, self.patch_size, self.stride)
        patch_ids = ids.amin(dim=-1)
        assert torch.eq(patch_ids, ids.amax(dim=-1)).all(), "a patch spans more than one group of id_mask"
        return self.projection(x.unfold(-1, self.patch_size, self.stride)), patch_ids
