"""Cache that behaves as the one of toto-ts 0.2.0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from toto_model.cache.base import KV, KVCache, host_layer_map


class UpstreamKVCache(KVCache):
    """Lengths and layer ranks both in int32 tensors on the device.

    Reads slice by the ints that ``.item()`` gives; writes slice by 0-d tensors.
    """

    def __init__(self, time_layers: Sequence[int], num_layers: int, **sizes: Any) -> None:
        super().__init__(time_layers, num_layers, **sizes)
        device = self._keys.device
        self._current_idx = torch.zeros(self.num_cached, dtype=torch.int32, device=device)
        ranks = host_layer_map(time_layers, num_layers)
        self._layer_cache_map = torch.tensor(ranks, dtype=torch.int32, device=device)

    def _cache_idx(self, layer_idx: int) -> int:
        return int(self._layer_cache_map[layer_idx].item())

    def __getitem__(self, layer_idx: int) -> KV:
        cache_idx = self._cache_idx(layer_idx)
        end = int(self._current_idx[cache_idx].item())
        return self._keys[cache_idx, :, :, :end, :], self._values[cache_idx, :, :, :end, :]

    def append(self, layer_idx: int, kv: KV) -> None:
        cache_idx = self._cache_idx(layer_idx)
        keys, values = kv
        self.check_shapes(keys, values)
        start_idx = self._current_idx[cache_idx]
        end_idx = start_idx + keys.shape[2]
        assert end_idx <= self.max_seq_len, f"cache of {self.max_seq_len} patches cannot hold {end_idx}"
        self._keys[cache_idx, :, :, start_idx:end_idx, :] = keys
        self._values[cache_idx, :, :, start_idx:end_idx, :] = values
        self._current_idx[cache_idx] = end_idx

    def current_len(self, cache_idx: int) -> int:
        return int(self._current_idx[cache_idx].item()) if self._current_idx.numel() > 0 else 0

    def seq_len(self, layer_idx: int) -> int:
        return self.current_len(self._cache_idx(layer_idx))

    def reset(self) -> None:
        super().reset()
        self._current_idx.zero_()
