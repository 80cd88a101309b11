"""What a decode step costs in a cache of 8192 rows of which 512 are filled, for one in a cache that is just large enough:
``python -m benchmarks.filled`` (some minutes on a CPU).

Four heads read the keys and values of two, in bfloat16 and under a mask, with `scaled_dot_product_attention` and written out.
Calls with the two caches take turns, and the median of each is taken: on a machine that does other work, too, their ratio says
more than the times.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fxpass.tools import figures

CAPACITY, FILLED, HEADS, SHARED, DIM = 8192, 512, 8, 2, 64
QUERIES, CALLS = (1, 4, 64), 150


def written(k: Tensor, v: Tensor, x: Tensor, pos: int) -> int:
    end = pos + x.shape[2]
    k[:, :, pos:end], v[:, :, pos:end] = x, x
    return end


def by_sdpa(q: Tensor, x: Tensor, k: Tensor, v: Tensor, mask: Tensor, pos: int) -> Tensor:
    end = written(k, v, x, pos)
    return scaled_dot_product_attention(q, k[:, :, :end], v[:, :, :end], mask[:, :end], enable_gqa=True)


def by_hand(q: Tensor, x: Tensor, k: Tensor, v: Tensor, mask: Tensor, pos: int) -> Tensor:
    end = written(k, v, x, pos)
    keys, values = (t[:, :, :end].repeat_interleave(HEADS // SHARED, 1) for t in (k, v))
    scores = (q @ keys.mT * DIM**-0.5).masked_fill(~mask[:, :end], -torch.inf)
    return scores.float().softmax(-1).to(q.dtype) @ values


def measure(step: Callable[..., Tensor], queries: int) -> dict[str, float]:
    """Microseconds of a step with each of the two caches, and their ratio."""
    torch._dynamo.reset()
    compiled = torch.compile(step, backend="kvfix")
    x = torch.randn(1, SHARED, queries, DIM, dtype=torch.bfloat16)
    q = torch.randn(1, HEADS, queries, DIM, dtype=torch.bfloat16)
    taken: dict[int, list[float]] = {CAPACITY: [], FILLED + queries: []}
    caches = {n: torch.zeros(2, 1, SHARED, n, DIM, dtype=torch.bfloat16).unbind() for n in taken}
    masks = {n: torch.ones(queries, n, dtype=torch.bool) for n in taken}
    for call in range(CALLS):
        for capacity, times in taken.items():
            pos = FILLED - 1 - call % 8
            start = time.perf_counter()
            compiled(q, x, *caches[capacity], masks[capacity], pos)
            times.append(time.perf_counter() - start)
    whole, exact = (1e6 * statistics.median(times[20:]) for times in taken.values())
    return {"us": round(whole), "us_exact": round(exact), "ratio": round(whole / exact, 3)}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for step in (by_sdpa, by_hand):
        for queries in QUERIES:
            rows.append({"attention": step.__name__, "queries": queries, **measure(step, queries)})
            print(*(f"{key} {value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    if options.json:
        figures.write_figures(options.json, {"command": "python -m benchmarks.filled", "rows": rows})


if __name__ == "__main__":
    main()
