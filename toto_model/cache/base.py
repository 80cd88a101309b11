"""What the key/value caches have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

KV = tuple[Tensor, Tensor]
Length = Any  # an int; from the fixed-size cache, a 0-d int64 tensor


class KVCache:
    """Keys and values of the time-wise layers, kept between decoding steps.

    The buffers are (time_layers, batch * variates, heads, max_seq_len, head_dim).  Layers are named by their index in
    the whole stack (``layer_idx``) or by their rank among the time-wise layers (``cache_idx``).

    Args:
        time_layers: the stack indices of the time-wise layers, ascending.
        num_layers: layers in the whole stack.
        rows: batch size times number of variates.
        max_seq_len: capacity in patches.
        device, dtype: of the buffers.
    """

    def __init__(
        self,
        time_layers: Sequence[int],
        num_layers: int,
        rows: int,
        num_heads: int,
        max_seq_len: int,
        head_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.num_cached = max(1, len(time_layers))  # a stack of space-wise layers only still has a length to ask for
        self.rows = rows
        self.num_heads = num_heads
        self.max_seq_len = max_seq_len
        self.head_dim = head_dim
        shape = (self.num_cached, rows, num_heads, max_seq_len, head_dim)
        self._keys = torch.zeros(shape, device=device, dtype=dtype)
        self._values = torch.zeros(shape, device=device, dtype=dtype)

    def check_shapes(self, keys: Tensor, values: Tensor) -> None:
        """Raise AssertionError unless both are (rows, heads, seq, head_dim) with the sizes of this cache."""
        assert keys.shape == values.shape, f"keys {tuple(keys.shape)} and values {tuple(values.shape)} differ in shape"
        found = (keys.shape[0], keys.shape[1], keys.shape[3])
        expected = (self.rows, self.num_heads, self.head_dim)
        assert found == expected, f"got (rows, heads, head_dim) {found}, the cache was allocated for {expected}"

    def __getitem__(self, layer_idx: int) -> KV:
        """Keys and values of a layer, each (rows, heads, seq, head_dim)."""
        raise NotImplementedError

    def append(self, layer_idx: int, kv: KV) -> None:
        """Add keys and values of new steps, each (rows, heads, new, head_dim).

        Raises:
            AssertionError: they do not fit the cache, or exceed its capacity.
        """
        raise NotImplementedError

    def current_len(self, cache_idx: int) -> Length:
        """Patches held for a time-wise layer."""
        raise NotImplementedError

    def seq_len(self, layer_idx: int) -> Length:
        """Patches held for a layer of the stack."""
        raise NotImplementedError

    def reset(self) -> None:
        """Empty the cache, keeping its buffers."""
        self._keys.zero_()
        self._values.zero_()


def host_layer_map(time_layers: Sequence[int], num_layers: int) -> list[int]:
    """Rank among the time-wise layers for each layer of the stack, 0 for the space-wise ones."""
    ranks = [0] * num_layers
    for cache_idx, layer_idx in enumerate(time_layers):
        ranks[layer_idx] = cache_idx
    return ranks
