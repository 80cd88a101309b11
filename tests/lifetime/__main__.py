"""``python -m tests.lifetime``: the long runs, with what they leave behind; a difference from eager, or growth, is an error.

python -m tests.lifetime --json benchmarks/results/lifetime.json
python -m tests.lifetime --device cuda --compiler inductor --json benchmarks/results/lifetime_cuda.json
TORCHINDUCTOR_COMPILE_THREADS=1 compute-sanitizer --tool memcheck \\
    python -m tests.lifetime --only small --device cuda --compiler inductor
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import fxpass
from fxpass.tools import figures

from . import runs


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    compiler: str = "eager",
    only: Annotated[list[str] | None, typer.Option(help="threads, row, random, dropped or small")] = None,
    rounds: Annotated[int, typer.Option(help="forecasts of each thread")] = 1000,
    count: Annotated[int, typer.Option(help="forecasts in a row; 0: 2,000 on a CPU, 500 on a GPU")] = 0,
    json: Path | None = None,
) -> None:
    """Threads (on a CPU), forecasts in a row, at random, and what is let go."""
    count = count or (2000 if device == "cpu" else 500)
    where = (device, compiler)
    every: dict[str, Callable[[], Any]] = {
        "threads": lambda: [runs.in_threads(rounds, shared, *where) for shared in (True, False)],
        "row": lambda: flat(runs.in_a_row(count, *where)),
        "random": lambda: bounded(runs.at_random(1000, *where)),
        "dropped": lambda: gone(runs.dropped(*where)),
        "small": lambda: flat(runs.in_a_row(4, *where)),
    }
    usual = [name for name in every if name != "small" and (name != "threads" or device == "cpu")]
    found = {}
    for name in only or usual:
        torch.compiler.reset()
        fxpass.reset()
        began = time.perf_counter()
        found[name] = {"left": every[name](), "seconds": round(time.perf_counter() - began, 1)}
        assert name == "dropped" or any(report.rewritten for report in fxpass.reports()), "nothing ran compiled"
        print(name, found[name], flush=True)
    if json is not None:
        figures.write_figures(json, {"compiler": compiler, "rounds": rounds, "forecasts": count, **found})


def flat(left: list[runs.Left]) -> list[dict[str, int]]:
    """``left``, of which the second half must have added nothing."""
    middle, last = left[1], left[-1]
    assert last.objects - middle.objects < 50, left
    assert last.peak - middle.peak < 2**21 and last.allocated <= middle.allocated, left
    return bounded(left)


def bounded(left: list[runs.Left]) -> list[dict[str, int]]:
    """``left``, in which no CUDA graph may have been skipped, and Inductor's bound on recordings must hold."""
    assert left[-1].recordings <= 128 and left[-1].skips == 0, left
    return [dataclasses.asdict(some) for some in left]


def gone(held: list[Any]) -> list[str]:
    assert held == [None] * len(held), held
    return []


if __name__ == "__main__":
    typer.run(main)
