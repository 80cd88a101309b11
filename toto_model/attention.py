"""Multi-head attention over time and over variates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from toto_model.cache import KVCache, Length
from toto_model.rope import TimeAwareRotaryEmbedding


class MultiheadAttention(nn.Module):
    """Projections shared by both kinds of attention.  Tensors inside are (rows, heads, seq, head_dim)."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.wQKV = nn.Linear(embed_dim, 3 * embed_dim)
        self.wO = nn.Linear(embed_dim, embed_dim)

    def project_in(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, seq, embed_dim) -> q, k and v; heads are the fastest-running part of the projection's output."""
        qkv = self.wQKV(x).unflatten(-1, (3, self.head_dim, self.num_heads))
        q, k, v = qkv.permute(2, 0, 4, 1, 3).unbind(0)
        return q, k, v

    def project_out(self, x: Tensor) -> Tensor:
        """(rows, heads, seq, head_dim) -> (rows, seq, embed_dim)."""
        return self.wO(x.transpose(1, 2).flatten(2))

    def scores(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Scaled dot-product attention in the dtype of ``q``, with dropout while training."""
        dropout = self.dropout if self.training else 0.0
        q, k, v = q.contiguous(), k.contiguous().to(q.dtype), v.contiguous().to(q.dtype)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal)


class TimeWiseAttention(MultiheadAttention):
    """Causal attention along time, each variate on its own, with rotary positions and an optional cache."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, rotary_emb: TimeAwareRotaryEmbedding) -> None:
        super().__init__(embed_dim, num_heads, dropout)
        self.rotary_emb = rotary_emb

    def attend(self, q: Tensor, k: Tensor, v: Tensor, offset: Length) -> Tensor:
        """Causal attention of queries that start at position ``offset`` over keys that start at 0.

        A query with an offset is the newest step, which may look at every key.
        """
        return self.scores(q, k, v, is_causal=offset == 0)

    def forward(self, layer_idx: int, x: Tensor, mask: Tensor | None, kv_cache: KVCache | None) -> Tensor:
        """(batch, variates, seq, embed_dim) -> the same shape.  ``mask`` is for space-wise layers, and unused."""
        batch, variates = x.shape[:2]
        q, k, v = self.project_in(x.flatten(0, 1))
        offset = 0 if kv_cache is None else kv_cache.seq_len(layer_idx)
        q, k = self.rotary_emb(q, k, offset)
        if kv_cache is not None:
            kv_cache.append(layer_idx, (k, v))
            k, v = kv_cache[layer_idx]
        return self.project_out(self.attend(q, k, v, offset)).unflatten(0, (batch, variates))


class SpaceWiseAttention(MultiheadAttention):
    """Attention across variates at each time step, within the groups of the id mask and blind to their order."""

    def forward(self, layer_idx: int, x: Tensor, mask: Tensor | None, kv_cache: KVCache | None) -> Tensor:
        """(batch, variates, seq, embed_dim) -> the same shape.

        ``mask`` is boolean, (batch * seq, 1, variates, variates), True where attention is allowed.  ``kv_cache`` is
        unused: a time step never looks at another one here.
        """
        batch, _, seq, _ = x.shape
        q, k, v = self.project_in(x.transpose(1, 2).flatten(0, 1))
        out = self.project_out(self.scores(q, k, v, mask))
        return out.unflatten(0, (batch, seq)).transpose(1, 2)


def spacewise_mask(id_mask: Tensor) -> Tensor:
    """Which variates see each other at each step.

    Args:
        id_mask: (batch, variates or 1, seq), group of each variate.

    Returns:
        Boolean (batch * seq, 1, variates, variates), or 1 in place of variates where all share one group.
    """
    ids = id_mask.transpose(1, 2).flatten(0, 1)
    return torch.eq(ids[:, None, :, None], ids[:, None, None, :])
