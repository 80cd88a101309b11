"""Cache whose every read and write has a fixed shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from toto_model.cache.base import KV, KVCache, host_layer_map


class FixedSizeKVCache(KVCache):
    """Reads give the full buffers and lengths stay on the device, so nothing here waits for the device.

    The attention must hide the part of a buffer that is not yet written: use ``FixedSizeTimeWiseAttention``.

    Capacity cannot be checked against a position that is never read back.  The backbone calls ``check_capacity`` with
    the length that it knows from the shape of the series; a direct ``append`` past the end is only caught by
    ``index_copy_`` itself (IndexError on a CPU, a device-side assertion on a GPU).

    Attributes:
        prefilled: whether a prefill has gone through every time-wise layer since the last reset (a plain bool).
    """

    def __init__(self, time_layers: Sequence[int], num_layers: int, **sizes: Any) -> None:
        super().__init__(time_layers, num_layers, **sizes)
        self._current_idx = torch.zeros(self.num_cached, dtype=torch.int64, device=self._keys.device)
        self._layer_cache_map = host_layer_map(time_layers, num_layers)
        self.prefilled = False

    def check_capacity(self, seq_len: int) -> None:
        """Raise AssertionError unless ``seq_len`` patches in all fit."""
        assert seq_len <= self.max_seq_len, f"cache of {self.max_seq_len} patches cannot hold {seq_len}"

    def unseen(self, x: Tensor, stride: int) -> Tensor:
        """The steps of ``x`` (batch, variates, time) that are not cached: all at first, then the last patch.

        ``x`` is the whole series so far, one patch longer at each step.
        """
        return x.narrow(-1, x.shape[-1] - stride, stride) if self.prefilled else x

    def __getitem__(self, layer_idx: int) -> KV:
        cache_idx = self._layer_cache_map[layer_idx]
        return self._keys[cache_idx], self._values[cache_idx]

    def append(self, layer_idx: int, kv: KV) -> None:
        keys, values = kv
        self.check_shapes(keys, values)
        cache_idx = self._layer_cache_map[layer_idx]
        slots = self._current_idx[cache_idx] + torch.arange(keys.shape[2], device=keys.device)
        self._keys[cache_idx].index_copy_(2, slots, keys.to(self._keys.dtype))
        self._values[cache_idx].index_copy_(2, slots, values.to(self._values.dtype))
        self._current_idx[cache_idx].add_(keys.shape[2])
        if cache_idx == self.num_cached - 1:
            self.prefilled = True

    def current_len(self, cache_idx: int) -> Tensor:
        """Patches held for a time-wise layer, as a 0-d int64 tensor of its own (later appends do not change it)."""
        return self._current_idx[cache_idx].clone()

    def seq_len(self, layer_idx: int) -> Tensor:
        return self.current_len(self._layer_cache_map[layer_idx])

    def reset(self) -> None:
        super().reset()
        self._current_idx.zero_()
        self.prefilled = False
