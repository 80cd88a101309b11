"""Cache with its lengths in a Python list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toto_model.cache.base import KV, KVCache, host_layer_map


class BaselineKVCache(KVCache):
    """One Python int per time-wise layer says how much of its buffer is filled; reads and writes slice by it."""

    def __init__(self, time_layers: Sequence[int], num_layers: int, **sizes: Any) -> None:
        super().__init__(time_layers, num_layers, **sizes)
        self._current_idx: list[int] = [0] * self.num_cached
        self._layer_cache_map = host_layer_map(time_layers, num_layers)

    def __getitem__(self, layer_idx: int) -> KV:
        cache_idx = self._layer_cache_map[layer_idx]
        end = self._current_idx[cache_idx]
        return self._keys[cache_idx, :, :, :end], self._values[cache_idx, :, :, :end]

    def append(self, layer_idx: int, kv: KV) -> None:
        keys, values = kv
        self.check_shapes(keys, values)
        cache_idx = self._layer_cache_map[layer_idx]
        start = self._current_idx[cache_idx]
        end = start + keys.shape[2]
        assert end <= self.max_seq_len, f"cache of {self.max_seq_len} patches cannot hold {end}"
        self._keys[cache_idx, :, :, start:end] = keys
        self._values[cache_idx, :, :, start:end] = values
        self._current_idx[cache_idx] = end

    def current_len(self, cache_idx: int) -> int:
        return self._current_idx[cache_idx]

    def seq_len(self, layer_idx: int) -> int:
        return self.current_len(self._layer_cache_map[layer_idx])

    def reset(self) -> None:
        super().reset()
        self._current_idx = [0] * self.num_cached
