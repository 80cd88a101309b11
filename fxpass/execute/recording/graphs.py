"""A function of tensors recorded as CUDA graphs, one for each place in memory that its static inputs have.

    first call      run(*args)                                     kernels are loaded, and tuned
    second          record run(*own), own = [static inputs, sizes, buffers for all others]
    from then on    copy what is not static into the buffers; launch the recording

A call costs a look at the addresses, one copy and the launch. The results lie in the memory of the recording, and the next call
overwrites them: `results` and `packing` copy out what leaves the graph. So recordings can share memory, in whatever order they
run.
"""

from __future__ import annotations

import dataclasses
import operator
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxpass.graph.arguments import values_at
from fxpass.graph.memory_addresses import memory_address
from fxpass.kernels.launches.recorded_inputs import recording_of

from .copying import copy_into

MOST = 64
"""So many recordings of one function are kept in each thread: those that ran last."""
Run = Callable[..., Sequence[Any]]
Capture = Callable[[Callable[[], Sequence[Any]]], tuple[Sequence[Any], Callable[[], None]]]
"""Records what a function does, and gives its results and what launches the recording."""


@dataclasses.dataclass
class _Pool:
    """Where recordings on a device are made: on ``stream``, with memory of the pool ``handle``, in which ``graphs`` are."""

    stream: torch.cuda.Stream
    handle: Any = None
    graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = dataclasses.field(default_factory=weakref.WeakSet)


class _Pools(threading.local):
    """The pool of each device that recordings of this thread are made in.

    PyTorch gives up a pool when the last graph in it goes, and takes no further graph into it while memory of it is in use,
    such as the workspace of cuBLAS. The next graph then gets a pool of its own, and cuBLAS a new workspace there.
    """

    def __init__(self) -> None:
        self._of: dict[int, _Pool] = {}

    def of(self, device: int) -> _Pool:
        if device not in self._of:
            self._of[device] = _Pool(torch.cuda.Stream(device))
        pool = self._of[device]
        if not pool.graphs:
            if pool.handle is not None:
                _let_cublas_go()
            pool.handle = torch.cuda.graph_pool_handle()
        return pool


def _let_cublas_go() -> None:
    """Free the workspace of cuBLAS. A recording that uses it keeps its pool, and writes it before reading it."""
    from fxpass.torch_internals.inductor.names import cudagraph_trees

    getattr(cudagraph_trees, "clear_cublass_cache", lambda: None)()


_pools = _Pools()
_made: weakref.WeakSet[_Recording] = weakref.WeakSet()


def own_recordings() -> int:
    """The recordings that there are, on all devices and in all threads."""
    return len(_made)


def on_device(device: int) -> Capture:
    """What records on the GPU ``device``."""

    def capture(run: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], Callable[[], None]]:
        pool, graph = _pools.of(device), torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            with torch.cuda.graph(graph, pool.handle, pool.stream, capture_error_mode="thread_local"):
                results = run()
        pool.graphs.add(graph)
        return results, graph.replay

    return capture


@dataclasses.dataclass(eq=False)
class _Recording:
    """A recording for static inputs at ``addresses`` and for these ``sizes``, with the buffers of all other inputs, and the
    results. Results that lie in the memory of an input are ``views``, which are made anew in each call."""

    addresses: Sequence[int]
    sizes: Sequence[int]
    buffers: list[torch.Tensor]
    results: Sequence[Any]
    views: Sequence[tuple[int, Callable[[Sequence[Any]], Any]]]
    launch: Callable[[], None]


class Recorded(threading.local):
    """``run``, recorded by ``capture`` for each value of the numbers at ``sizes``. The tensors at ``static`` are read where
    they are, and those of them at ``written`` are written there. The tensors at ``copied`` are copied.

    Each thread has recordings of its own. They hold none of the tensors that they were made with: a cache that the caller lets
    go of is freed.
    """

    def __init__(
        self,
        run: Run,
        capture: Capture,
        static: Sequence[int],
        copied: Sequence[int],
        written: Sequence[int] = (),
        sizes: Sequence[int] = (),
    ) -> None:
        self._run, self._capture, self._static, self._copied = run, capture, static, copied
        self._static_of, self._written_of, self._sizes_of = values_at(static), values_at(written), values_at(sizes)
        self._has_run: set[Sequence[int]] = set()
        self._recordings: list[_Recording] = []  # the one that ran last comes first

    def __call__(self, *args: Any) -> Sequence[Any]:
        addresses, sizes = [*map(torch.Tensor.data_ptr, self._static_of(args))], self._sizes_of(args)
        for place, recording in enumerate(self._recordings):
            if recording.addresses == addresses and recording.sizes == sizes:
                if place:
                    self._recordings.insert(0, self._recordings.pop(place))
                return self._launched(recording, args)
        if sizes not in self._has_run:
            results = self._run(*args)
            self._has_run.add(sizes)
            return results
        return self._launched(self._recorded(addresses, sizes, args), args)

    def _launched(self, recording: _Recording, args: Sequence[Any]) -> Sequence[Any]:
        self._fill(recording.buffers, args)
        recording.launch()
        torch.autograd.graph.increment_version(self._written_of(args))
        if not recording.views:
            return recording.results
        results = list(recording.results)
        for place, view in recording.views:
            results[place] = view(args)
        return results

    def _recorded(self, addresses: Sequence[int], sizes: Sequence[int], args: Sequence[Any]) -> _Recording:
        own = list(args)
        with torch.inference_mode(False):  # so that they can be written in any grad mode
            for i in self._copied:
                own[i] = torch.empty_strided(args[i].shape, args[i].stride(), dtype=args[i].dtype, device=args[i].device)
        buffers = [_dense(own[i]) for i in self._copied]
        self._fill(buffers, args)
        with recording_of(own):
            results, launch = self._capture(lambda: self._run(*own))
        results, views = _without_inputs(results, args, self._static)
        recording = _Recording(addresses, sizes, buffers, results, views, launch)
        self._recordings = [recording, *self._recordings][:MOST]
        _made.add(recording)
        return recording

    def _fill(self, buffers: list[torch.Tensor], args: Sequence[Any]) -> None:
        if buffers:
            copy_into(buffers, [_dense(args[i]) for i in self._copied])


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` with one element along each dim that it repeats."""
    if 0 not in tensor.stride():
        return tensor
    for dim, stride in enumerate(tensor.stride()):
        tensor = tensor.narrow(dim, 0, 1) if stride == 0 and tensor.shape[dim] > 1 else tensor
    return tensor


def _without_inputs(results: Sequence[Any], args: Sequence[Any], static: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """``results`` without those that lie in the memory of a static input, and for each of these its place and a function that
    makes it from the inputs of a call."""
    memory = {memory_address(args[i]): i for i in static}
    views: list[tuple[int, Callable[[Sequence[Any]], Any]]] = []
    kept = list(results)
    for place, result in enumerate(results):
        if isinstance(result, torch.Tensor) and (i := memory.get(memory_address(result))) is not None:
            views.append((place, operator.itemgetter(i) if result is args[i] else _view(i, result, args[i])))
            kept[place] = None
    return kept, views


def _view(i: int, result: torch.Tensor, source: torch.Tensor) -> Callable[[Sequence[Any]], Any]:
    """A function that makes what lies in the memory of the argument ``i`` as ``result`` does in that of ``source``."""
    dtype, device, shape, strides = result.dtype, result.device, result.shape, result.stride()
    distance = result.data_ptr() - source.data_ptr()

    def make(args: Sequence[Any]) -> torch.Tensor:
        start = (args[i].storage_offset() * args[i].itemsize + distance) // dtype.itemsize
        own = torch.empty(0, dtype=dtype, device=device)
        return own.set_(args[i].untyped_storage(), start, shape, strides)  # type: ignore[call-overload]

    return make
