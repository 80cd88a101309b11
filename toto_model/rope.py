"""Rotary position embedding with the xPos length scaling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toto_model.cache import Length


def _rotate_pairs(x: Tensor) -> Tensor:
    """(..., 2d) -> (..., 2d): each neighboring pair (a, b) becomes (-b, a)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    return torch.stack((-b, a), dim=-1).flatten(-2)


class TimeAwareRotaryEmbedding(nn.Module):
    """Rotates queries and keys by their position in time, and scales them by the xPos decay.

    The decay is centered on half of the last position of the call, so keys that were rotated by an earlier call (and
    kept in a cache) carry another center than a single pass over the whole series would give them.

    Two details follow the published weights: the angles repeat pairwise (f0, f0, f1, f1, ...) while the decay repeats
    as a block (s0, s1, ..., s0, s1, ...).  Neither buffer is part of the state dict.
    """

    freqs: Tensor
    scale: Tensor

    def __init__(self, head_dim: int, theta: float = 10000.0, scale_base: float = 512.0) -> None:
        super().__init__()
        even = torch.arange(0, head_dim, 2)
        self.scale_base = scale_base
        self.register_buffer("freqs", 1.0 / theta ** (even.float() / head_dim), persistent=False)
        self.register_buffer("scale", (even + 0.4 * head_dim) / (1.4 * head_dim), persistent=False)

    def forward(self, q: Tensor, k: Tensor, offset: Length = 0) -> tuple[Tensor, Tensor]:
        """Rotate ``q`` and ``k``, both (rows, heads, seq, head_dim), which start at position ``offset``.

        ``offset`` may be a 0-d integer tensor.  Shapes and dtypes are kept.
        """
        positions = torch.arange(q.shape[-2], device=q.device, dtype=q.dtype) + offset
        angles = (positions.to(self.freqs.dtype)[:, None] * self.freqs).repeat_interleave(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        power = (positions - positions[-1:] // 2) / self.scale_base
        half_scale = self.scale ** power[:, None]
        scale = torch.cat((half_scale, half_scale), dim=-1).to(q.dtype)

        def rotate(x: Tensor, decay: Tensor) -> Tensor:
            return (x * cos * decay + _rotate_pairs(x) * sin * decay).to(x.dtype)

        return rotate(q, scale), rotate(k, scale**-1)
