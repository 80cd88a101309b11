"""The four caches, against each other and against no cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toto.model.util import KVCache as ReferenceCache
from toto_cases import CONFIG, PATCH, make_reference, masks, ours, random_series, times

from toto_model import CACHES, KVCache, Toto, TotoBackbone, TotoForecaster
from toto_model.cache import FixedSizeKVCache

EVERY_CACHE = pytest.mark.parametrize("kv_cache", list(CACHES))


def allocate(kv_cache: str, patches: int) -> KVCache:
    return TotoBackbone(CONFIG, kv_cache).allocate_kv_cache(1, 2, patches * PATCH, "cpu", torch.float32)


def new_kv(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, CONFIG.num_heads, length, CONFIG.head_dim)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@EVERY_CACHE
def test_append_read_reset(kv_cache: str):
    cache = allocate(kv_cache, patches=5)
    (k1, v1), (k2, v2) = new_kv(3), new_kv(1, seed=1)
    cache.append(1, (k1, v1))
    cache.append(1, (k2, v2))
    assert [int(cache.current_len(i)) for i in range(3)] == [0, 4, 0]
    assert int(cache.seq_len(1)) == 4
    keys, values = cache[1]
    assert torch.equal(keys[:, :, :4], torch.cat((k1, k2), dim=2))
    assert torch.equal(values[:, :, :4], torch.cat((v1, v2), dim=2))
    assert keys.shape[2] == (5 if kv_cache == "fixed_size" else 4)
    cache.reset()
    assert int(cache.seq_len(1)) == 0
    cache.append(1, (k2, v2))
    assert torch.equal(cache[1][0][:, :, :1], k2)


@EVERY_CACHE
def test_layout_is_that_of_the_package(kv_cache: str):
    reference = make_reference().model.allocate_kv_cache(1, 2, 5 * PATCH, torch.device("cpu"), torch.float64)
    assert isinstance(reference, ReferenceCache)
    cache = TotoBackbone(CONFIG, kv_cache).allocate_kv_cache(1, 2, 5 * PATCH, "cpu", torch.float64)
    assert cache._keys.shape == reference._keys.shape
    assert cache._keys.dtype == reference._keys.dtype
    if kv_cache == "upstream":
        for name in ("_current_idx", "_layer_cache_map"):
            mine, theirs = getattr(cache, name), getattr(reference, name)
            assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype


@EVERY_CACHE
def test_wrong_shapes_are_refused(kv_cache: str):
    cache = allocate(kv_cache, patches=5)
    k, v = new_kv(2)
    with pytest.raises(AssertionError, match="differ in shape"):
        cache.append(0, (k, v[:, :, :1]))
    with pytest.raises(AssertionError, match="allocated for"):
        cache.append(0, (k[:1], v[:1]))


@EVERY_CACHE
def test_overflow_of_append(kv_cache: str):
    cache = allocate(kv_cache, patches=5)
    cache.append(0, new_kv(4))
    with pytest.raises(IndexError if kv_cache == "fixed_size" else AssertionError):
        cache.append(0, new_kv(2))


@EVERY_CACHE
@pytest.mark.parametrize("labels", [False, True])
def test_overflow_in_the_backbone(kv_cache: str, labels: bool):
    reference = make_reference()
    if labels:
        reference.model.enable_variate_labels()  # these take one place in the cache
    model = ours(reference, kv_cache).model
    cache = model.allocate_kv_cache(2, 3, 5 * PATCH, "cpu", torch.float32)
    fits = random_series(patches=4 if labels else 5)
    too_long = random_series(patches=5 if labels else 6)
    with torch.no_grad():
        model(fits, **masks(fits, "plain"), kv_cache=cache)
        with pytest.raises(AssertionError, match="cannot hold"):
            model(too_long, **masks(too_long, "plain"), kv_cache=cache)


@pytest.mark.parametrize("kv_cache", [name for name in CACHES if name != "fixed_size"])
def test_decodes_one_patch_at_a_time(kv_cache: str):
    model = ours(make_reference(), kv_cache).model
    cache = model.allocate_kv_cache(2, 3, 9 * PATCH, "cpu", torch.float32)
    with torch.no_grad():
        series = random_series(patches=5)
        model(series, **masks(series, "plain"), kv_cache=cache)
        series = random_series(patches=7)
        with pytest.raises(AssertionError, match="one step at a time"):
            model(series, **masks(series, "plain"), kv_cache=cache)


@EVERY_CACHE
def test_caches_agree(kv_cache: str):
    reference = make_reference()
    series = random_series()
    call: dict[str, Any] = {"prediction_length": 4 * PATCH, **times(series), **masks(series, "mixed")}
    found = TotoForecaster(ours(reference, kv_cache).model).generate_mean(series, use_kv_cache=True, **call)
    upstream = TotoForecaster(ours(reference, "upstream").model)
    torch.testing.assert_close(found, upstream.generate_mean(series, use_kv_cache=True, **call), rtol=1e-6, atol=2e-6)

    # Cached keys keep the xPos center of the step that made them, so only the first patch is the same to the last bits.
    uncached = upstream.generate_mean(series, use_kv_cache=False, **call)
    torch.testing.assert_close(found[..., :PATCH], uncached[..., :PATCH], rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(found, uncached, rtol=1e-3, atol=1e-3)


def test_fixed_size_ignores_what_it_has_not_written():
    model = ours(make_reference(), "fixed_size").model
    series = random_series()
    outputs = []
    for filler in (0.0, 1e4):
        cache = model.allocate_kv_cache(2, 3, 9 * PATCH, "cpu", torch.float32)
        cache._keys.fill_(filler)
        cache._values.fill_(filler)
        with torch.no_grad():
            for patches in (5, 6):
                series = random_series(patches=patches)
                outputs.append(model.backbone(series, **masks(series, "plain"), kv_cache=cache)[0])
        assert isinstance(cache, FixedSizeKVCache) and cache.prefilled
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])


def test_unknown_cache():
    for cls in (Toto, TotoBackbone):
        with pytest.raises(ValueError, match="baseline.*compile_friendly.*upstream.*fixed_size"):
            cls(CONFIG, kv_cache="ring")
