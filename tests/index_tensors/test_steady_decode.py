"""Decoding never asks the device where it is; and whatever else moves the position is seen by the next call."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from small_models import (
    CACHES,
    CAPACITY,
    TENSOR_CACHES,
    Attention,
    Cache,
    ItemCache,
    StartPos,
    breaks,
    graphs,
    kvfix,
    same_step,
    steps,
)

import fxpass
from fxpass.index_tensors import mirror

EVERY_CACHE = pytest.mark.parametrize("kind", list(CACHES))
EVERY_TENSOR_CACHE = pytest.mark.parametrize("kind", TENSOR_CACHES)


@EVERY_CACHE
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@torch.no_grad()
def test_two_graphs(kind: str, compiler: str):
    model, cache = Attention(), CACHES[kind]()
    compiled, eager_cache = kvfix(model, compiler), copy.deepcopy(cache)
    for i, x in enumerate(steps(decoded=8)):
        same_step(f"step {i}", model, compiled, x, eager_cache, cache)
    assert (graphs(), breaks()) == (2, 0)
    decode = fxpass.reports()[-1]
    assert decode.refused == 0
    assert [s.kind for s in decode.sites if s.buffer] == ["write", "write", "read", "read"]


@torch.no_grad()
def test_start_pos():
    model, eager = StartPos(), StartPos()
    compiled, position = kvfix(model), 0
    for x in steps(decoded=8):
        torch.testing.assert_close(compiled(x, position), eager(x, position), rtol=1e-6, atol=1e-6)
        assert torch.equal(model.keys, eager.keys) and torch.equal(model.values, eager.values)
        position += x.shape[1]
    assert (graphs(), breaks()) == (2, 0)
    assert (fxpass.reports()[-1].rewritten, fxpass.reports()[-1].refused) == (4, 0)


@EVERY_CACHE
@torch.no_grad()
def test_prompts_of_many_lengths(kind: str):
    """An empty cache is a graph of its own also where the length of the prompt is dynamic: three graphs in all."""
    model = Attention()
    compiled = kvfix(model)
    for prompt in (4, 7, 3, 9):
        cache, eager_cache = CACHES[kind](), CACHES[kind]()
        for i, x in enumerate(steps(prompt)):
            same_step(f"prompt {prompt}, step {i}", model, compiled, x, eager_cache, cache)
    assert (graphs(), breaks()) == (3, 0)
    assert not any(r.refused or r.unfit for r in fxpass.reports())


@EVERY_TENSOR_CACHE
@torch.no_grad()
def test_no_device_reads(kind: str):
    """Fails without `advance`: then every step finds a version that it does not know, and reads."""
    model, cache = Attention(), CACHES[kind]()
    compiled, inputs = kvfix(model), steps(decoded=9)
    for x in inputs[:3]:
        compiled(x, cache)
    before = mirror.counters.refreshes
    for x in inputs[3:]:
        compiled(x, cache)
    assert mirror.counters.refreshes == before
    assert fxpass.reports()[-1].host_reads == before
    assert mirror.counters.hits >= 7


@torch.no_grad()
def test_every_step_would_read_without_advance(monkeypatch: pytest.MonkeyPatch):
    """The count above is not blind: without the mirror's own arithmetic each step costs a read."""
    monkeypatch.setattr(mirror, "advance", lambda *_: None)
    model, cache = Attention(), ItemCache()
    compiled, inputs = kvfix(model), steps(decoded=9)
    for x in inputs[:3]:
        compiled(x, cache)
    before = mirror.counters.refreshes
    for x in inputs[3:]:
        compiled(x, cache)
    assert mirror.counters.refreshes - before >= 7


def _reset(cache: ItemCache) -> None:
    cache.reset()


def _zero_index(cache: ItemCache) -> None:
    cache.index.zero_()


def _rewind(cache: ItemCache) -> None:
    cache.index[0] -= 2


def _numpy(cache: ItemCache) -> None:
    cache.index.numpy()[0] = 3


def _data(cache: ItemCache) -> None:
    cache.index.data[0] = 3


def _other_index(cache: ItemCache) -> None:
    cache.index = torch.full((1,), 3)


def _set_data(cache: ItemCache) -> None:
    cache.index.data = torch.full((1,), 3)


EDITS = [_reset, _zero_index, _rewind, _numpy, _data, _other_index, _set_data]


@EVERY_TENSOR_CACHE
@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e.__name__.strip("_"))
@torch.no_grad()
def test_edits_between_calls_are_seen(kind: str, edit: Callable[[Cache], None]):
    """Fails where guards trust the mirror without looking at version and contents; see the test below."""
    model, cache = Attention(), CACHES[kind]()
    compiled, eager_cache = kvfix(model), CACHES[kind]()
    inputs = steps(decoded=10)
    for i, x in enumerate(inputs):
        if i in (4, 8):
            edit(cache)
            edit(eager_cache)
        same_step(f"step {i}", model, compiled, x, eager_cache, cache)
    assert breaks() == 0


def _fill(cache: ItemCache) -> None:
    cache.index.fill_(CAPACITY)


def _fill_numpy(cache: ItemCache) -> None:
    cache.index.numpy()[0] = CAPACITY


@pytest.mark.parametrize("trusting", [False, True])
@pytest.mark.parametrize("edit", [_fill, _fill_numpy], ids=lambda e: e.__name__.strip("_"))
@torch.no_grad()
def test_edits_are_seen_by_guards(edit: Callable[[ItemCache], None], trusting: bool, monkeypatch: pytest.MonkeyPatch):
    """A cache filled by hand raises as in eager; not so where remembered values are trusted without a look."""
    model, cache = Attention(), ItemCache()
    compiled, inputs = kvfix(model), steps(decoded=5)
    for x in inputs[:4]:
        compiled(x, cache)
    edit(cache)
    if trusting:
        monkeypatch.setattr(mirror, "_load", lambda t: mirror._entries[id(t)].values)
    with pytest.raises(IndexError if trusting else AssertionError):
        compiled(inputs[4], cache)


@EVERY_CACHE
@torch.no_grad()
def test_new_cache_object(kind: str):
    model = Attention()
    compiled = kvfix(model)
    for _ in range(3):
        cache, eager_cache = CACHES[kind](), CACHES[kind]()
        for i, x in enumerate(steps()):
            same_step(f"step {i}", model, compiled, x, eager_cache, cache)
    assert (graphs(), breaks()) == (2, 0)


@EVERY_CACHE
@torch.no_grad()
def test_other_capacity(kind: str):
    """One graph for every capacity; the position is the same, the full read is not."""
    model = Attention()
    compiled = kvfix(model)
    for capacity in (16, 12, 20, 16):
        cache, eager_cache = CACHES[kind](capacity), CACHES[kind](capacity)
        for i, x in enumerate(steps()):
            same_step(f"capacity {capacity}, step {i}", model, compiled, x, eager_cache, cache)
    assert breaks() == 0
    assert graphs() <= 3


@EVERY_CACHE
def test_inference_mode(kind: str):
    """Inference tensors have no version counter: the index is read on each call, and the numbers are right."""
    model = Attention()
    compiled = kvfix(model)
    with torch.inference_mode():
        cache, eager_cache = CACHES[kind](), CACHES[kind]()
        for i, x in enumerate(steps(decoded=8)):
            if i == 5 and kind in TENSOR_CACHES:
                _rewind(cache)  # type: ignore[arg-type]
                _rewind(eager_cache)  # type: ignore[arg-type]
            same_step(f"step {i}", model, compiled, x, eager_cache, cache)
    assert breaks() == 0
    assert fxpass.reports()[-1].rewritten > 0


@EVERY_CACHE
def test_modes_take_turns(kind: str):
    """no_grad, inference mode and back, on one cache made outside of both."""
    model, cache, eager_cache = Attention(), CACHES[kind](), CACHES[kind]()
    compiled = kvfix(model)
    for i, x in enumerate(steps(decoded=8)):
        with torch.no_grad() if i % 3 else torch.inference_mode():
            same_step(f"step {i}", model, compiled, x, eager_cache, cache)
    assert breaks() == 0


@torch.no_grad()
def test_two_caches_take_turns():
    model = Attention()
    compiled = kvfix(model)
    caches = [(ItemCache(), ItemCache()) for _ in range(2)]
    for i, x in enumerate(steps(decoded=8)):
        for n, (cache, eager_cache) in enumerate(caches):
            same_step(f"step {i}", model, compiled, x, eager_cache, cache)
            if i == 3 and n == 0:
                same_step("one more", model, compiled, inputs_of_one(), eager_cache, cache)
    assert (graphs(), breaks()) == (2, 0)


def inputs_of_one() -> torch.Tensor:
    return steps(1, 0)[0]
