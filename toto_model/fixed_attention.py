"""The attention edit that goes with the fixed-size cache."""

from __future__ import annotations

import torch
from torch import Tensor

from toto_model.attention import TimeWiseAttention
from toto_model.cache import Length


class FixedSizeTimeWiseAttention(TimeWiseAttention):
    """Time-wise attention over the whole buffer of ``FixedSizeKVCache``, hiding by a mask what is not yet written.

    The offset comes as a 0-d tensor and never reaches the host, so causality is spelled out as a boolean mask of shape
    (seq, buffer).  For the prefill that is the causal triangle; for one decoded step it is ``arange(buffer) < end``.
    Without a cache the offset is the int 0, and the unedited attention runs.
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, offset: Length) -> Tensor:
        if not isinstance(offset, Tensor):
            return super().attend(q, k, v, offset)
        q_positions = torch.arange(q.shape[-2], device=q.device) + offset
        k_positions = torch.arange(k.shape[-2], device=q.device)
        return self.scores(q, k, v, mask=k_positions <= q_positions[:, None])
