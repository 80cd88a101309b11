"""The model proper: scaling, patch embedding, transformer and output distribution."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from toto_model.attention import TimeWiseAttention
from toto_model.cache import CACHES, FixedSizeKVCache, KVCache
from toto_model.config import TotoConfig
from toto_model.distribution import OUTPUT_DISTRIBUTIONS
from toto_model.fixed_attention import FixedSizeTimeWiseAttention
from toto_model.layers import PatchEmbedding
from toto_model.scaler import make_scaler
from toto_model.transformer import Transformer


class TotoOutput(NamedTuple):
    """One forward pass: the distribution of the scaled values, and the location and scale that undo the scaling.

    The distribution covers the steps that were run, (batch, variates, new_time): with a filled cache, the last patch.
    It predicts the patch after each input patch.  ``loc`` and ``scale`` always cover the whole series,
    (batch, variates, time), or (batch, variates, 1) from ``StdMeanScaler``.
    """

    distribution: Distribution
    loc: Tensor
    scale: Tensor


class TotoBackbone(nn.Module):
    """Decoder-only transformer over patches of a multivariate series.

    Args:
        config: hyper-parameters.
        kv_cache: which cache ``allocate_kv_cache`` makes, a key of ``toto_model.cache.CACHES``.

    Raises:
        ValueError: unknown ``kv_cache``.
    """

    target_variate_label: nn.Parameter | None
    exogenous_variate_label: nn.Parameter | None

    def __init__(self, config: TotoConfig, kv_cache: str = "upstream") -> None:
        super().__init__()
        if kv_cache not in CACHES:
            raise ValueError(f"unknown kv_cache {kv_cache!r}, expected one of {list(CACHES)}")
        self.config = config
        self.kv_cache = kv_cache
        self.embed_dim = config.embed_dim
        self.num_prepended_tokens = 0
        self.register_parameter("target_variate_label", None)
        self.register_parameter("exogenous_variate_label", None)
        self.scaler = make_scaler(
            config.scaler_cls, config.patch_size, config.stabilize_with_global, config.scale_factor_exponent
        )
        self.patch_embed = PatchEmbedding(config.patch_size, config.stride, config.embed_dim)
        time_attention = FixedSizeTimeWiseAttention if kv_cache == "fixed_size" else TimeWiseAttention
        self.transformer = Transformer(config, time_attention)
        self.unembed = nn.Linear(config.embed_dim, config.embed_dim * config.patch_size)
        head = OUTPUT_DISTRIBUTIONS[config.output_distribution_classes[0]]
        self.output_distribution = head(config.embed_dim, **(config.output_distribution_kwargs or {}))

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.unembed.weight.device

    def allocate_kv_cache(
        self, batch_size: int, num_variates: int, max_time_steps: int, device: torch.device | str, dtype: torch.dtype
    ) -> KVCache:
        """An empty cache for series of up to ``max_time_steps`` steps, of the kind chosen at construction."""
        return CACHES[self.kv_cache](
            time_layers=[i for i, spacewise in enumerate(self.config.layer_is_spacewise) if not spacewise],
            num_layers=self.config.num_layers,
            rows=batch_size * num_variates,
            num_heads=self.config.num_heads,
            max_seq_len=ceil(max_time_steps / self.config.stride),
            head_dim=self.config.head_dim,
            device=device,
            dtype=dtype,
        )

    def enable_variate_labels(self) -> None:
        """Add learned labels that tell target variates from exogenous ones, as one token before each variate."""
        self.num_prepended_tokens = 1
        self.target_variate_label = nn.Parameter(torch.randn(self.embed_dim, device=self.device))
        self.exogenous_variate_label = nn.Parameter(torch.randn(self.embed_dim, device=self.device))

    def _unseen(self, series: Tensor, id_mask: Tensor, kv_cache: KVCache | None) -> tuple[Tensor, Tensor, bool]:
        """The part of ``series`` and ``id_mask`` (..., time) that the cache lacks, and whether that is all of it."""
        stride = self.config.stride
        if kv_cache is None:
            return series, id_mask, True
        if isinstance(kv_cache, FixedSizeKVCache):
            kv_cache.check_capacity(series.shape[-1] // stride + self.num_prepended_tokens)
            return kv_cache.unseen(series, stride), kv_cache.unseen(id_mask, stride), not kv_cache.prefilled
        prefix_len = max(0, stride * (kv_cache.current_len(0) - self.num_prepended_tokens))
        series, id_mask = series[:, :, prefix_len:], id_mask[:, :, prefix_len:]
        assert prefix_len == 0 or series.shape[-1] == stride, "Must decode one step at a time."
        return series, id_mask, prefix_len == 0

    def _variate_labels(self, batch: int, variates: int, num_exogenous: int) -> Tensor:
        """Unit-length labels (batch, variates, 1, embed_dim); the last ``num_exogenous`` variates are exogenous."""
        assert self.target_variate_label is not None and self.exogenous_variate_label is not None
        exogenous = torch.arange(variates, device=self.device)[:, None] >= variates - num_exogenous
        labels = torch.where(exogenous, self.exogenous_variate_label, self.target_variate_label)
        return F.normalize(labels, dim=-1)[None, :, None].expand(batch, -1, -1, -1)

    def backbone(
        self,
        inputs: Tensor,
        input_padding_mask: Tensor,
        id_mask: Tensor,
        kv_cache: KVCache | None = None,
        scaling_prefix_length: int | None = None,
        num_exogenous_variables: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features of each step, (batch, variates, new_time, embed_dim), with location and scale; see ``forward``."""
        scaled, loc, scale = self.scaler(inputs, input_padding_mask, scaling_prefix_length)
        scaled, id_mask, is_first = self._unseen(scaled, id_mask, kv_cache)
        x, patch_ids = self.patch_embed(scaled, id_mask)
        if self.target_variate_label is not None and is_first:
            labels = self._variate_labels(x.shape[0], x.shape[1], num_exogenous_variables)
            x = torch.cat((labels.to(x.dtype), x), dim=2)
            patch_ids = torch.cat((patch_ids[..., :1], patch_ids), dim=-1)
            x = self.transformer(x, patch_ids, kv_cache)[:, :, 1:]
        else:
            x = self.transformer(x, patch_ids, kv_cache)
        features = self.unembed(x).unflatten(-1, (self.config.patch_size, self.embed_dim)).flatten(2, 3)
        return features, loc, scale

    def forward(
        self,
        inputs: Tensor,
        input_padding_mask: Tensor,
        id_mask: Tensor,
        kv_cache: KVCache | None = None,
        scaling_prefix_length: int | None = None,
        num_exogenous_variables: int = 0,
    ) -> TotoOutput:
        """Predict the patch after each patch of the series.

        Args:
            inputs: (batch, variates, time), floating point, the whole series even when part of it is cached.
            input_padding_mask: boolean, of the shape of ``inputs``, True at valid steps.
            id_mask: (batch, variates or 1, time); variates with the same number see each other.
            kv_cache: from ``allocate_kv_cache``; after the first pass the series grows one patch per call.
            scaling_prefix_length: steps on which global scaling statistics are measured; all by default.
            num_exogenous_variables: how many of the last variates are exogenous (read only with variate labels).

        Raises:
            AssertionError: time is no multiple of the patch size, a patch spans two groups, the cache is full, or the
                series grew by another amount than one patch (the last cannot be seen by the fixed-size cache).
        """
        features, loc, scale = self.backbone(
            inputs, input_padding_mask, id_mask, kv_cache, scaling_prefix_length, num_exogenous_variables
        )
        return TotoOutput(self.output_distribution(features), loc, scale)
