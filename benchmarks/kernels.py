"""What the kernels cost by themselves: ``python benchmarks/kernels.py --json FILE`` (a GPU, about a minute).

Microseconds a call, medians of replays of a CUDA graph of one call after the other, over more memory than the L2 cache holds.

    attention    8 key heads for 32 heads of dim 64: 512 valid keys in a buffer of 512 and of 8192, alone and with a mask
    products     kvfix and cuBLAS, each with a kernel behind it that takes the result and adds the parts, started early as in a
                 core; the time to read the weights
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import torch

from fxpass.kernels.launches.limits import MEASURED_ROWS, SURE_ROWS
from fxpass.kernels.products.clock import replayed, times_of_product
from fxpass.kernels.products.tiles import best_parts
from fxpass.kernels.select import register
from fxpass.tools import figures

BANDWIDTH = 3.35e6
"""Bytes a microsecond that an H100 reads."""
SHAPES = [
    (torch.bfloat16, 16384, 2048), (torch.bfloat16, 2048, 8192), (torch.bfloat16, 2048, 2048), (torch.bfloat16, 3072, 2048),
    (torch.float32, 6144, 768), (torch.float32, 768, 3072), (torch.float32, 768, 768), (torch.float32, 2304, 768),
]  # fmt: skip


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


def product(dtype: torch.dtype, n: int, k: int, rows: int) -> dict[str, Any]:
    parts = best_parts(rows, [n], k, dtype.itemsize, torch.device("cuda"))
    ours, theirs = times_of_product(rows, n, k, dtype)
    return {"dtype": str(dtype), "n": n, "k": k, "rows": rows, "parts": parts, "kvfix_us": ours, "cublas_us": theirs,
            "floor_us": round(n * k * dtype.itemsize / BANDWIDTH, 2)}  # fmt: skip


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
        for rows in (1, 2, 4, SURE_ROWS, 16, 32, MEASURED_ROWS):
            found["products"].append(product(dtype, n, k, rows))
            print(found["products"][-1], flush=True)
    if options.json:
        figures.write_figures(options.json, {"command": "python benchmarks/kernels.py", **found})


if __name__ == "__main__":
    main()
