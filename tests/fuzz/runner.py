"""Many programs, one process a worker; a tally of what came of them."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import gc
import logging
import multiprocessing
import sys
import time
from collections.abc import Generator
from typing import Any

import torch
from torch._dynamo import guards

from .driver import Outcome, run
from .program import generate


def programs(seed: int, count: int, compiler: str, workers: int = 1, stock: str = "asked") -> Generator[Outcome]:
    """The outcomes of ``count`` programs from ``seed`` on, as they come."""
    seeds = range(seed, seed + count)
    if workers == 1:
        ready()
        yield from (one(s, compiler, stock) for s in seeds)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=ready) as pool:
        waiting = [pool.submit(one, s, compiler, stock) for s in seeds]
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield done.result()
        finally:  # what has not begun when the time is up is not run
            pool.shutdown(cancel_futures=True)


def ready() -> None:
    """What makes a process fit to run many programs: one thread, no logs, garbage collected between programs only."""
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    guards.profile_guard_manager = lambda *_: 0.0  # 50 ms a graph, for a log
    torch._dynamo.config.fake_tensor_cache_enabled = False  # sizes move: what it keeps is hardly asked for again
    gc.collect()
    gc.freeze()
    gc.disable()


def one(seed: int, compiler: str, stock: str) -> Outcome:
    outcome = run(generate(seed), compiler, stock)
    if seed % 8 == 0:
        gc.collect()
    return outcome


def tally(outcomes: list[Outcome]) -> dict[str, Any]:
    """Totals, and each failure with its seed."""
    refused: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        refused.update(outcome.refused)
    ours = [o for o in outcomes if o.failure is not None and not o.stock_fails]
    sites = sum(o.sites for o in outcomes)
    return {
        "torch": torch.__version__,
        "programs": len(outcomes),
        "useful": sum(o.eager_errors == 0 or o.calls > 1 for o in outcomes),
        "failures": dict(collections.Counter(o.failure.kind for o in ours if o.failure)),
        "stock fails too": sum(bool(o.failure and o.stock_fails) for o in outcomes),
        "sites": sites,
        "refused": sum(refused.values()),
        "share refused": round(sum(refused.values()) / max(1, sites), 4),
        "unfit": dict(collections.Counter(u.split(":")[0] for o in outcomes for u in o.unfit).most_common(12)),
        "reasons": dict(refused.most_common(30)),
        "failed": [{"seed": o.seed, **dataclasses.asdict(o.failure)} for o in ours if o.failure],
        "failed with stock too": [{"seed": o.seed, "stock": o.stock_fails, **dataclasses.asdict(o.failure)}
                                  for o in outcomes if o.failure and o.stock_fails],
    }  # fmt: skip


def watched(outcomes: Generator[Outcome], limit: float = float("inf")) -> list[Outcome]:
    """All of ``outcomes``, or what has come when ``limit`` seconds have passed; failures are told as they come."""
    began, kept = time.perf_counter(), []
    for outcome in outcomes:
        kept.append(outcome)
        if outcome.failure is not None:
            stock = f"   [stock: {outcome.stock_fails}]" if outcome.stock_fails else ""
            print(f"{outcome.seed}: {outcome.failure.kind} at call {outcome.failure.call}: {outcome.failure.detail}{stock}",
                  file=sys.stderr, flush=True)  # fmt: skip
        if time.perf_counter() - began > limit:
            outcomes.close()
    return kept
