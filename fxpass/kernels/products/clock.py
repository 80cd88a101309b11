"""How long a product takes on the GPU, by our kernel and by cuBLAS, with a kernel behind it that takes the result.

    x @ w0.T; take; x @ w1.T; take; ...        recorded as one CUDA graph and replayed; the weights together fill no cache
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from fxpass.kernels.launches.launch import Launch, gpu, wait, wake

from .linear import linear_few_rows
from .tiles import best_parts

REPLAYS = 15
SAME = 0.97
"""A round of replays that takes more of the time of the round before is no faster."""


def replayed(calls: Callable[[], Any], count: int) -> float:
    """Microseconds of each of the ``count`` things that ``calls`` does on the current device: the least of `REPLAYS`.

    The clock of a GPU that was idle rises, so they are replayed until they get no faster.
    """
    calls()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.Stream()):  # `torch.cuda.graph` would give back all memory that nobody uses
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            calls()
        finally:
            graph.capture_end()
    best, last = _least(graph), math.inf
    while best < SAME * last:
        best, last = _least(graph), best
    return round(min(best, last) * 1e3 / count, 2)


def _least(graph: torch.cuda.CUDAGraph) -> float:
    """The milliseconds of the fastest of `REPLAYS`."""
    times = []
    for _ in range(REPLAYS):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()  # so that the host is ahead when the next one starts
        first.record()
        graph.replay()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last))
    return min(times)


def times_of_product(rows: int, outputs: int, columns: int, dtype: torch.dtype) -> list[float]:
    """Microseconds of our kernel and of cuBLAS on the current device, for an input of (rows, columns) and a weight of (outputs,
    columns), both of ``dtype``."""
    size, device = outputs * columns * dtype.itemsize, torch.device("cuda", torch.cuda.current_device())
    count = -(-4 * gpu(device).cache // size)
    own = torch.Generator(device).manual_seed(0)  # the user's random numbers stay what they are
    draw = functools.partial(torch.randn, device=device, dtype=dtype, generator=own)
    weights, x = [draw(outputs, columns) for _ in range(count)], draw(rows, columns)
    parts = best_parts(rows, [outputs], columns, dtype.itemsize, device)
    ours = replayed(lambda: [_taken(linear_few_rows(x, w, None, parts, True), dtype) for w in weights], len(weights))
    theirs = replayed(lambda: [_taken(torch.nn.functional.linear(x, w)[None], dtype) for w in weights], len(weights))
    return [ours, theirs]


@triton.jit
def _take(parts_ptr, sum_ptr, size, PARTS: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    """One program adds the parts of BLOCK elements, as the kernel that takes a product does in a core."""
    if DEPENDENT:
        wake()
        wait()
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts_ptr + part * size + i, i < size, 0.0).to(tl.float32)
    tl.store(sum_ptr + i, total, i < size)


def _taken(parts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``parts`` (parts, rows, outputs) added into one, of ``dtype``."""
    total = parts.new_empty(parts.shape[1:], dtype=dtype)
    options = {"PARTS": len(parts), "BLOCK": 1024, **gpu(parts.device).options}
    Launch(_take, triton.cdiv(total.numel(), 1024), (parts, total, total.numel()), options).run()
    return total
