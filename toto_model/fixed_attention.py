"""The attention edit that goes with the fixed-size cache."""

from __future__ import annotations

import torch
from torch import Tensor

from toto_model.attention import TimeWiseAttention
from toto_model.cache import Length


class FixedSizeTimeWiseAttention(TimeWiseAttention):
    """Time-wise attention over the whole buffer of ``FixedSizeKVCache``, hiding by a mask what is not yet written.

    The offset comes as a 0-d tensor and never reaches the host, so causality is spelled out as a boolean mask of shape
    (seq, buffer).  For one decoded step that is ``arange(buffer) < end``; for the prefill it is the causal triangle.
    Without a cache the offset is the int 0, and the unedited attention runs.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, offset: Length) -> Tensor:
        if not isinstance(offset, Tensor):
            return super().attend(q, k, v, offset)
        return self.scores(q, k, v, mask=self.visible(q.shape[-2], k, offset))

    def visible(self, seq: int, k: Tensor, offset: Tensor) -> Tensor:
        """Boolean (seq, buffer): which rows of the buffer ``k`` each of the ``seq`` newest steps may look at."""
        k_positions = torch.arange(k.shape[-2], device=k.device)
        if seq == 1:
            return (k_positions < offset + 1)[None]
        q_positions = torch.arange(seq, device=k.device) + offset
        return k_positions <= q_positions[:, None]
