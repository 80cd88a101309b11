"""The transformer stack."""

from __future__ import annotations

from torch import Tensor, nn

from toto_model.attention import MultiheadAttention, SpaceWiseAttention, TimeWiseAttention, spacewise_mask
from toto_model.cache import KVCache
from toto_model.config import TotoConfig
from toto_model.layers import RMSNorm, SwiGLU
from toto_model.rope import TimeAwareRotaryEmbedding


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward blocks, each with a residual connection."""

    def __init__(self, config: TotoConfig, attention: MultiheadAttention) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.embed_dim)
        self.norm2 = RMSNorm(config.embed_dim)
        self.attention = attention
        self.mlp = nn.Sequential(
            nn.Linear(config.embed_dim, 2 * config.mlp_hidden_dim),
            SwiGLU(),
            nn.Linear(config.mlp_hidden_dim, config.embed_dim),
            nn.Dropout(config.dropout),
        )

    def forward(self, layer_idx: int, x: Tensor, mask: Tensor, kv_cache: KVCache | None) -> Tensor:
        """(batch, variates, seq, embed_dim) -> the same shape; ``mask`` as in ``SpaceWiseAttention``."""
        x = x + self.attention(layer_idx, self.norm1(x), mask, kv_cache)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Time-wise layers, with space-wise ones among them where the configuration puts them.

    ``time_attention`` is the class of the time-wise attention; all of its layers share one rotary embedding.
    """

    def __init__(self, config: TotoConfig, time_attention: type[TimeWiseAttention] = TimeWiseAttention) -> None:
        super().__init__()
        self.rotary_emb = TimeAwareRotaryEmbedding(config.head_dim)
        width, heads, dropout = config.embed_dim, config.num_heads, config.dropout
        self.layers = nn.ModuleList(
            TransformerLayer(
                config,
                SpaceWiseAttention(width, heads, dropout)
                if spacewise
                else time_attention(width, heads, dropout, self.rotary_emb),
            )
            for spacewise in config.layer_is_spacewise
        )

    def forward(self, x: Tensor, id_mask: Tensor, kv_cache: KVCache | None = None) -> Tensor:
        """Run all layers.

        Args:
            x: (batch, variates, seq, embed_dim), only the steps that ``kv_cache`` has not seen.
            id_mask: (batch, variates or 1, seq), group of each variate.
            kv_cache: read and extended by the time-wise layers.
        """
        mask = spacewise_mask(id_mask)
        for layer_idx, layer in enumerate(self.layers):
            x = layer(layer_idx, x, mask, kv_cache)
        return x
