"""Recordings: by addresses, with buffers for what moves, and nothing kept of what they were made with.

The stand-in for a CUDA graph runs the function again, into the results of the first run.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from graphs import traced
from torch import Tensor

from fxpass.execute.compilation.sequence import recorded
from fxpass.execute.recording import graphs as recording
from fxpass.execute.recording.graphs import Recorded, own_recordings


class Captured:
    """A capture that counts, and whose launch runs what was captured with the very same tensors."""

    def __init__(self) -> None:
        self.captured = self.launched = 0

    def __call__(self, run: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], Callable[[], None]]:
        self.captured += 1
        results = run()

        def launch() -> None:
            self.launched += 1
            for old, new in zip(results, run(), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    with torch.inference_mode():
                        old.copy_(new)

        return results, launch


def step(cache: Tensor, at: Tensor, x: Tensor) -> tuple[Any, ...]:
    cache.index_copy_(0, at, x)
    return cache.sum(0), cache, cache[1:], 7


def called(capture: Captured, runs: int = 3) -> tuple[Recorded, Tensor]:
    recorded, cache = Recorded(step, capture, [0], [1, 2], [0]), torch.zeros(4, 2)
    for i in range(runs):
        x = torch.full((1, 2), i + 1.0)
        total, same, rest, number = recorded(cache, torch.tensor([i]), x)
        wanted = torch.tensor([[j + 1.0] * 2 if j <= i else [0.0] * 2 for j in range(4)])
        assert torch.equal(cache, wanted) and torch.equal(total, wanted.sum(0)) and torch.equal(rest, wanted[1:])
        assert same is cache and number == 7 and rest.data_ptr() == cache[1:].data_ptr()
    return recorded, cache


def test_the_second_call_records_and_later_ones_launch() -> None:
    capture = Captured()
    called(capture, runs=4)
    assert (capture.captured, capture.launched) == (1, 3)


def test_a_launch_counts_as_a_write() -> None:
    """The mirror of index tensors goes by the version of what is written."""

    def nothing(run: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], Callable[[], None]]:
        return run(), lambda: None

    recorded, cache, x = Recorded(step, nothing, [0], [1, 2], [0]), torch.zeros(4, 2), torch.ones(1, 2)
    for _ in range(2):
        recorded(cache, torch.tensor([1]), x)
    versions = cache._version, x._version
    recorded(cache, torch.tensor([1]), x)
    assert (cache._version, x._version) == (versions[0] + 1, versions[1])


def test_a_recording_for_each_address() -> None:
    capture = Captured()
    recorded, _ = called(capture)
    other = torch.zeros(4, 2)
    for _ in range(2):
        assert recorded(other, torch.tensor([1]), torch.ones(1, 2))[1] is other
    assert capture.captured == 2 and other.sum() == 2
    called_again = torch.zeros(4, 2)
    called_again.set_(other.untyped_storage(), 0, (4, 2), (2, 1))  # another tensor, in the same memory
    assert recorded(called_again, torch.tensor([2]), torch.ones(1, 2))[1] is called_again
    assert capture.captured == 2 and other.sum() == 4


def test_a_recording_for_each_size() -> None:
    capture = Captured()
    recorded = Recorded(lambda x, size: (x[:size] * 2,), capture, [], [0], sizes=[1])
    for size in (1, 1, 2, 2, 1, 2):
        assert torch.equal(recorded(torch.arange(3.0), size)[0], 2 * torch.arange(3.0)[:size])
    assert (capture.captured, capture.launched) == (2, 4)


def test_memory_that_a_tensor_is_given_meanwhile_is_seen() -> None:
    capture = Captured()
    recorded, cache = called(capture)
    kept, cache.data = cache.data, torch.zeros(4, 2)  # same tensor, same version
    assert torch.equal(recorded(cache, torch.tensor([0]), torch.ones(1, 2))[0], torch.ones(2))
    assert capture.captured == 2 and kept.sum() == 12


def test_a_view_in_larger_memory_gives_views_of_it() -> None:
    recorded, _ = called(Captured())
    large = torch.zeros(9, 2)
    for cache in (large[1:5], large[1:5], large[2:6]):
        rest = recorded(cache, torch.tensor([1]), torch.ones(1, 2))[2]
        assert rest.data_ptr() == cache[1:].data_ptr() and rest.untyped_storage().data_ptr() == large.data_ptr()


def test_no_more_than_some_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fxpass.execute.recording.graphs.MOST", 2)
    gc.collect()
    capture, before = Captured(), own_recordings()
    recorded, caches = Recorded(step, capture, [0], [1, 2], [0]), [torch.zeros(4, 2) for _ in range(3)]
    given = torch.tensor([1]), torch.ones(1, 2)
    for cache in (caches[0], *caches, caches[1], caches[0]):
        recorded(cache, *given)
    gc.collect()
    assert capture.captured == 4 and own_recordings() == before + 2
    del recorded
    gc.collect()
    assert own_recordings() == before


def test_what_it_was_made_with_is_let_go() -> None:
    def stand_in(run: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], Callable[[], None]]:
        return run(), lambda: None

    recorded, cache = Recorded(step, stand_in, [0], [1, 2], [0]), torch.zeros(4, 2)
    for _ in range(2):
        recorded(cache, torch.tensor([1]), torch.ones(1, 2))
    gone = weakref.ref(cache.untyped_storage())
    del cache
    gc.collect()
    assert gone() is None


def test_each_thread_records_for_itself() -> None:
    capture = Captured()
    recorded, cache = called(capture)

    def other() -> None:
        for _ in range(2):
            recorded(cache, torch.tensor([1]), torch.ones(1, 2))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert capture.captured == 2


def test_what_shares_memory_with_what_is_written_is_not_copied() -> None:
    def layer(k: Tensor, v: Tensor, x: Tensor) -> tuple[Tensor]:
        k.add_(x)
        return (k.sum() + v.sum(),)

    rows = torch.zeros(2, 4)
    for k, v, kept in ((rows[0], rows[1], [0, 1]), (torch.zeros(4), rows[1], [0])):
        gm = traced(layer, [k, v, torch.ones(4)])
        made = recorded(gm.forward, gm, [0])
        assert (made._static, made._copied) == (kept, [i for i in range(3) if i not in kept])


@pytest.mark.parametrize("made", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("used", [torch.no_grad, torch.inference_mode])
def test_recorded_in_one_grad_mode_and_launched_in_another(made: Any, used: Any) -> None:
    recorded = Recorded(lambda x, y: (x + y,), Captured(), [], [0, 1])
    for mode in (made, made, used):
        with mode():
            assert torch.equal(recorded(torch.ones(2), torch.ones(2))[0], torch.full((2,), 2.0))


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (1, 1)])
def test_an_expanded_input(shape: tuple[int, int]) -> None:
    recorded = Recorded(lambda x: (x * 2,), Captured(), [], [0])
    for i in range(3):
        x = torch.full(shape, float(i)).expand(2, 3)
        assert torch.equal(recorded(x)[0], x * 2)


class _Graph:
    """Stands for a CUDA graph."""

    def replay(self) -> None: ...


def test_a_pool_that_its_last_graph_has_left_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch has given it up, and fails if memory of it is still in use."""
    handles, used, freed = iter(range(10)), [], []
    trees = types.SimpleNamespace(clear_cublass_cache=lambda: freed.append(len(used)))
    monkeypatch.setattr("fxpass.torch_internals.inductor.names.cudagraph_trees", trees)

    def recorded(graph: _Graph, pool: int, stream: Any, **options: Any) -> contextlib.AbstractContextManager[None]:
        used.append((pool, stream))
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: object())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", recorded)
    monkeypatch.setattr(recording, "_pools", recording._Pools())
    capture = recording.on_device(0)
    kept = [capture(list)[1] for _ in range(2)]
    del kept[0]
    kept += [capture(list)[1]]
    kept.clear()
    capture(list)
    assert [pool for pool, _ in used] == [0, 0, 0, 1]
    assert freed == [3]
    assert len({stream for _, stream in used}) == 1
