"""Key/value caches, one file each; ``CACHES`` maps the names accepted by ``kv_cache=`` to their classes."""

from __future__ import annotations

from toto_model.cache.base import KV, KVCache, Length
from toto_model.cache.baseline import BaselineKVCache
from toto_model.cache.compile_friendly import CompileFriendlyKVCache
from toto_model.cache.fixed_size import FixedSizeKVCache
from toto_model.cache.upstream import UpstreamKVCache

CACHES: dict[str, type[KVCache]] = {
    "baseline": BaselineKVCache,
    "compile_friendly": CompileFriendlyKVCache,
    "upstream": UpstreamKVCache,
    "fixed_size": FixedSizeKVCache,
}

__all__ = [
    "CACHES",
    "KV",
    "BaselineKVCache",
    "CompileFriendlyKVCache",
    "FixedSizeKVCache",
    "KVCache",
    "Length",
    "UpstreamKVCache",
]
