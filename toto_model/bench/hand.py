"""The hand edit: what a person makes of the decode step who knows `torch.compile` and may change the model.

On top of the fixed-size cache and its masked attention (`toto_model.cache.fixed_size`), the model is taken apart at the
line between what grows and what does not:

    prefill         compiled as a whole
    decode          the scaler, compiled with a dynamic length
                    the rest on the last patch, compiled static with ``mode="reduce-overhead"``: one CUDA graph

This is the yardstick for kvfix, which must get there without the edit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from toto_model.backbone import TotoBackbone, TotoOutput
from toto_model.cache import FixedSizeKVCache


class HandEdit:
    """A forward for ``model``, whose cache is of fixed size, in three compiled pieces; ``backend`` for tests."""

    def __init__(self, model: TotoBackbone, backend: str = "inductor") -> None:
        self.patch = model.config.patch_size
        mode = "reduce-overhead" if backend == "inductor" else None
        self._prefill = torch.compile(model.forward, backend=backend)
        self._scale = torch.compile(model.scaler, backend=backend, dynamic=True)
        self._core = torch.compile(self._decode, backend=backend, mode=mode, dynamic=False)
        self._model = model

    def __call__(
        self,
        inputs: Tensor,
        input_padding_mask: Tensor,
        id_mask: Tensor,
        kv_cache: FixedSizeKVCache,
        scaling_prefix_length: int | None = None,
        **_: Any,
    ) -> TotoOutput:
        """As `TotoBackbone.forward`, with a cache and without exogenous variates."""
        if not kv_cache.prefilled:
            for tensor in (kv_cache._keys, kv_cache._values, kv_cache._current_idx):
                torch._dynamo.mark_static_address(tensor)
            return self._prefill(inputs, input_padding_mask, id_mask, kv_cache, scaling_prefix_length)
        kv_cache.check_capacity(inputs.shape[-1] // self.patch)
        scaled, loc, scale = self._scale(inputs, input_padding_mask, scaling_prefix_length)
        # Copies, also where one series makes a slice contiguous: its stride would go with the length, and so the guards.
        new, ids = (
            kv_cache.unseen(x, self.patch).clone(memory_format=torch.contiguous_format) for x in (scaled, id_mask)
        )
        return TotoOutput(self._core(new, ids, kv_cache), loc, scale)

    def _decode(self, new: Tensor, ids: Tensor, kv_cache: FixedSizeKVCache) -> Distribution:
        model = self._model
        x, patch_ids = model.patch_embed(new, ids)
        x = model.transformer(x, patch_ids, kv_cache)
        features = model.unembed(x).unflatten(-1, (self.patch, model.embed_dim)).flatten(2, 3)
        return model.output_distribution(features)
