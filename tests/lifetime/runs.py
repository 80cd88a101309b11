"""A tiny decoder with a cache, and what a long life brings: threads, many forecasts, eager calls in between, new caches.

Each call is compared with eager's, and what is left behind is counted.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import random
import resource
import threading
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import fxpass
from fxpass.index_tensors import mirror
from fxpass.tools.counting import recordings, skips

WIDTH = 64
Forward = Callable[[Tensor, "Cache"], Tensor]


class Cache:
    """Keys, values and the number of valid rows, which ``reset`` sets to 0."""

    def __init__(self, capacity: int, device: str) -> None:
        self.keys, self.values = torch.empty(2, 2, 1, capacity, WIDTH, device=device).fill_(float("nan"))
        self.index = torch.zeros(1, dtype=torch.int64, device=device)

    def reset(self) -> None:
        self.index.zero_()


class Decoder(nn.Module):
    """One attention layer."""

    def __init__(self, device: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(WIDTH, 3 * WIDTH, device=device)

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        q, k, v = self.project(x).unsqueeze(1).chunk(3, -1)
        start = int(cache.index[0].item())
        end = start + x.shape[1]
        assert end <= cache.keys.shape[2]
        cache.keys[:, :, start:end] = k
        cache.values[:, :, start:end] = v
        cache.index[0] = end
        return scaled_dot_product_attention(q, cache.keys[:, :, :end], cache.values[:, :, :end], is_causal=start == 0)


def another(model: Decoder) -> Decoder:
    """A copy of ``model`` with code of its own: Dynamo compiles each code a limited number of times, whatever the models."""
    forward = types.FunctionType(Decoder.forward.__code__.replace(), globals())
    own = copy.deepcopy(model)
    own.__class__ = type("Decoder", (Decoder,), {"forward": forward})
    return own


def compiled(model: nn.Module, compiler: str) -> Any:
    return torch.compile(model, backend="kvfix", options={"compiler": compiler})


@torch.no_grad()
def forecast(model: Forward, runs: Sequence[Forward], cache: Cache, beside: Cache, lengths: Sequence[int]) -> None:
    """One call for each of ``lengths`` rows, by each of ``runs`` on ``cache`` and by ``model`` on ``beside``.

    Raises:
        AssertionError: an output, a valid row or the number of rows differs.
    """
    for run, rows in zip(runs, lengths, strict=True):
        x = torch.randn(2, rows, WIDTH, device=cache.index.device)
        torch.testing.assert_close(run(x, cache), model(x, beside), rtol=1e-5, atol=1e-5)
    end = sum(lengths)
    assert cache.index.tolist() == beside.index.tolist() == [end]
    for own, its in ((cache.keys, beside.keys), (cache.values, beside.values)):
        torch.testing.assert_close(own[:, :, :end], its[:, :, :end], rtol=1e-5, atol=1e-5)


def in_threads(rounds: int, shared: bool, device: str = "cpu", compiler: str = "eager", threads: int = 8) -> None:
    """``rounds`` forecasts in each of some threads, of one model or of a model each.

    One model has been compiled before: Dynamo would compile it for each of the threads that wait, until it reaches its limit.

    Raises:
        BaseException: what the first thread to fail has raised.
    """
    model = Decoder(device)
    run = compiled(model, compiler)
    forecast(model, [run] * 4, Cache(16, device), Cache(16, device), (4, 1, 1, 1))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            mine = model if shared else another(model)
            own = run if shared else compiled(mine, compiler)
            for _ in range(rounds):
                forecast(mine, [own] * 4, Cache(16, device), Cache(16, device), (4, 1, 1, 1))
        except BaseException as error:
            errors.append(error)

    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if errors:
        raise errors[0]


@dataclasses.dataclass
class Left:
    """What there is after some forecasts: Python's objects, memory at its peak and on the GPU in bytes, CUDA graphs."""

    forecasts: int
    objects: int
    peak: int
    allocated: int
    recordings: int
    skips: int

    @classmethod
    def after(cls, forecasts: int) -> Left:
        gc.collect()
        gpu = torch.cuda.is_initialized()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        allocated = torch.cuda.memory_allocated() if gpu else 0
        return cls(forecasts, len(gc.get_objects()), peak, allocated, recordings() if gpu else 0, skips())


def in_a_row(count: int, device: str = "cpu", compiler: str = "eager") -> list[Left]:
    """``count`` forecasts, each with a cache of its own; what is left after each quarter."""
    model = Decoder(device)
    run = compiled(model, compiler)
    left = []
    for i in range(1, count + 1):
        forecast(model, [run] * 4, Cache(16, device), Cache(16, device), (4, 1, 1, 1))
        if i % (count // 4) == 0:
            left.append(Left.after(i))
    assert not mirror._entries, "index tensors that are gone are remembered"
    return left


def at_random(count: int, device: str = "cpu", compiler: str = "eager", seed: int = 0) -> list[Left]:
    """``count`` forecasts of random lengths with four caches that are used again, of two capacities, seldom with a new one.

    A fifth of the calls run eager, between compiled ones and on the same cache. What is left after each quarter.
    """
    draw = random.Random(seed)
    model = Decoder(device)
    run = compiled(model, compiler)
    caches: dict[tuple[int, int], tuple[Cache, Cache]] = {}
    left = []
    for i in range(1, count + 1):
        key = draw.choice((16, 24)), draw.randrange(2)
        if key not in caches or draw.random() < 0.02:
            caches[key] = Cache(key[0], device), Cache(key[0], device)
        for cache in caches[key]:
            cache.reset()
        lengths = draw.choice((3, 5)), *[1] * draw.randrange(1, 7)
        forecast(model, [model if draw.random() < 0.2 else run for _ in lengths], *caches[key], lengths)
        if i % (count // 4) == 0:
            left.append(Left.after(i))
    return left


def dropped(device: str = "cpu", compiler: str = "eager") -> list[Any]:
    """What is still there of a model and its cache after they have been dropped: None for each that is gone."""
    model, cache = Decoder(device), Cache(16, device)
    run = compiled(model, compiler)
    forecast(model, [run] * 4, cache, Cache(16, device), (4, 1, 1, 1))
    held = [weakref.ref(o) for o in (model, cache, cache.keys, cache.index)]
    del model, cache, run
    torch._dynamo.reset()
    fxpass.reset()
    gc.collect()
    return [ref() for ref in held]
