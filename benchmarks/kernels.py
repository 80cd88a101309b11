"""What the kernels cost by themselves: ``python benchmarks/kernels.py --json FILE`` (a GPU, about a minute).

Microseconds a call, medians of replays of a CUDA graph of one call after the other, over more memory than the L2 cache holds.

    attention    8 key heads for 32 heads of dim 64: 512 valid keys in a buffer of 512 and of 8192, alone and with a mask
    products     kvfix and cuBLAS, each with a kernel behind it that takes the result and adds the parts, started early as in a
                 core; the time to read the weights
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from fxpass.kernels.launch import Launch, gpu, wait, wake
from fxpass.kernels.limits import MAX_ROWS
from fxpass.kernels.select import register
from fxpass.kernels.tiles import best_parts
from fxpass.report import figures

BANDWIDTH = 3.35e6
"""Bytes a microsecond that an H100 reads."""
SHAPES = [
    (torch.bfloat16, 16384, 2048), (torch.bfloat16, 2048, 8192), (torch.bfloat16, 2048, 2048), (torch.bfloat16, 3072, 2048),
    (torch.float32, 6144, 768), (torch.float32, 768, 3072), (torch.float32, 768, 768), (torch.float32, 2304, 768),
]  # fmt: skip


def replayed(calls: Callable[[], Any], count: int) -> float:
    """Microseconds of each of ``count`` calls."""
    calls()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls()
    times = []
    for _ in range(15):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(100_000)
        first.record()
        graph.replay()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) * 1e3 / count)
    return round(statistics.median(times), 2)


def attention(dtype: torch.dtype, queries: int) -> dict[str, Any]:
    op = torch.ops.kvfix.decode_attention
    row: dict[str, Any] = {"dtype": str(dtype), "queries": queries}
    for size in (512, 8192):
        caches = [[torch.randn(1, 8, size, 64, device="cuda").to(dtype) for _ in range(2)] for _ in range(12)]
        q, length = torch.randn(1, 32, queries, 64, device="cuda").to(dtype), torch.tensor(512, device="cuda")
        mask = torch.rand(1, 1, queries, size, device="cuda") > 0.2
        for name, given in (("us", None), ("masked_us", mask)):
            row[f"{name}_{size}"] = replayed(
                lambda q=q, n=length, m=given, all=caches: [op(q, k, v, n, m, False, 0.125) for k, v in all], len(caches)
            )
    return row


@triton.jit
def _add(parts_ptr, sum_ptr, size, PARTS: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    """One program adds the parts of BLOCK elements, as the kernel that takes a product does in a core."""
    if DEPENDENT:
        wake()
        wait()
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts_ptr + part * size + i, i < size, 0.0).to(tl.float32)
    tl.store(sum_ptr + i, total, i < size)


def added(parts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``parts`` (parts, rows, out) added into one, of ``dtype``."""
    total = parts.new_empty(parts.shape[1:], dtype=dtype)
    options = {"PARTS": len(parts), "BLOCK": 1024, **gpu(parts.device).options}
    Launch(_add, triton.cdiv(total.numel(), 1024), (parts, total, total.numel()), options).run()
    return total


def product(dtype: torch.dtype, n: int, k: int, rows: int) -> dict[str, Any]:
    size = n * k * dtype.itemsize
    weights = [torch.randn(n, k, device="cuda").to(dtype) for _ in range(max(2, 200_000_000 // size))]
    x = torch.randn(rows, k, device="cuda").to(dtype)
    parts = best_parts(rows, [n], k, dtype.itemsize, x.device)
    op = torch.ops.kvfix.linear_few_rows
    ours = replayed(lambda: [added(op(x, w, None, parts, True), dtype) for w in weights], len(weights))
    theirs = replayed(lambda: [added(torch.mm(x, w.T)[None], dtype) for w in weights], len(weights))
    return {"dtype": str(dtype), "n": n, "k": k, "rows": rows, "parts": parts, "kvfix_us": ours, "cublas_us": theirs,
            "floor_us": round(size / BANDWIDTH, 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    torch.manual_seed(0)
    register()
    found: dict[str, list[Any]] = {"attention": [], "products": []}
    for dtype in (torch.bfloat16, torch.float32):
        for queries in (1, 4, 64):
            found["attention"].append(attention(dtype, queries))
            print(found["attention"][-1], flush=True)
    for dtype, n, k in SHAPES:
        for rows in (1, 2, 4, 8, MAX_ROWS):
            found["products"].append(product(dtype, n, k, rows))
            print(found["products"][-1], flush=True)
    if options.json:
        figures.write_figures(options.json, {"command": "python benchmarks/kernels.py", **found})


if __name__ == "__main__":
    main()
