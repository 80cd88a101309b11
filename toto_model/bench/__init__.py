"""``kvfix bench``: every way to decode, each in a process of its own, measured in turns on one machine.

All processes stay alive until the end: after each has compiled, with no cache of compiled code, they forecast one after
the other, round after round, so that a machine that grows slower does so for all of them. Other processes then compile
again, with the first ones' caches, and as often as asked with none.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import itertools
import json
import multiprocessing
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from toto_model.bench.approaches import APPROACHES, EAGER, PUBLISHED, REFERENCE, Approach
from toto_model.bench.sizes import ForecastSize
from toto_model.bench.table import Row, ratios, tables
from toto_model.bench.worker import Setting, floor, serve
from toto_model.config import TotoConfig

CONFIGS = {"base": TotoConfig.base, "tiny": TotoConfig.tiny}
DEFAULT_SIZES = ("7x4096-1536",)


class Process:
    """A `worker.serve` at the other end of a pipe."""

    def __init__(self, approach: Approach, setting: Setting, folder: pathlib.Path) -> None:
        cache, log = folder / approach.name, folder / f"{approach.name}.log"
        self._pipe, self._process = _start(serve, approach, setting, str(cache), str(log))
        self.ask(None)

    def ask(self, request: str | None) -> Any:
        """The answer to ``request``; None only waits for the process to be ready. Raises what ended the process."""
        if request is not None:
            self._pipe.send(request)
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process ended with status {self._process.exitcode}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _start(target: Any, *args: Any) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(there, *args), daemon=False)
    process.start()
    there.close()
    return here, process


class Bench:
    """The processes of one size and what they have answered so far."""

    def __init__(self, approaches: Sequence[Approach], setting: Setting, folder: pathlib.Path, say: Any) -> None:
        self.setting, self.folder, self.say = setting, folder, say
        folder.mkdir()
        self.rows: dict[Approach, Row] = {a: {"approach": a.name} for a in approaches}
        self.processes: dict[Approach, Process] = {}
        self.reference: np.ndarray | None = None
        self.floor: Row | None = None

    def compile(self, at_once: bool) -> None:
        """Start all processes, then let them compile, one after the other; an approach that fails keeps its error in its row
        and takes no further part.

        With ``at_once`` all compile at the same time, and how long that takes is not kept.
        """
        self._start(self.rows, self.folder)
        with ThreadPoolExecutor(len(self.rows) if at_once else 1) as pool:
            list(pool.map(functools.partial(self._compile, timed=not at_once), self._alive()))

    def measure(self, rounds: int) -> None:
        """All that is asked of compiled models."""
        if self.setting.device == "cuda":
            self.say("reading the weights")
            pipe, process = _start(floor, self.setting)
            self.floor = pipe.recv()
            process.join()
        for i in range(rounds):
            for approach in self._alive():
                with self._kept(approach, f"round {i + 1} of {rounds}"):
                    for name, values in self._ask(approach, "round").items():
                        self.rows[approach].setdefault(name, []).extend(values)
        for approach in self._alive():
            with self._kept(approach, "profile"):
                self.rows[approach] |= self._ask(approach, "apart")
                self._compare(approach, self._ask(approach, "forecast"))
                self.rows[approach] |= self._ask(approach, "end")
        self.stop()

    def compile_again(self, warm: bool, times: int) -> Iterator[None]:
        """Those whose first time was taken, in other processes: ``warm``, with the caches of the first, and the published
        package's without any, until that has been taken ``times`` times. Yields when all have done so once more."""
        timed = [a for a in self.rows if "cold_s" in self.rows[a] and "error" not in self.rows[a]]
        if warm:
            self._again(timed, "warm_s", self.folder)
            yield
        published = [a for a in timed if a.model == PUBLISHED]
        for i in range(1, times):
            folder = self.folder / f"cold {i}"
            folder.mkdir()
            self._again(published[:: (-1) ** i], "cold_s", folder)
            yield

    def _again(self, approaches: Sequence[Approach], name: str, folder: pathlib.Path) -> None:
        self._start(approaches, folder)
        for approach in approaches:
            if approach in self.processes:
                with self._kept(approach, f"compiling again, {name}"):
                    self.rows[approach].setdefault(name, []).append(self._ask(approach, "first")["seconds"])
        self.stop()

    def _start(self, approaches: Iterable[Approach], folder: pathlib.Path) -> None:
        """A process for each, all at once: what they import and build is no part of any figure. Caches are in ``folder``."""

        def start(approach: Approach) -> None:
            with self._kept(approach, "starting"):
                self.processes[approach] = Process(approach, self.setting, folder)

        with ThreadPoolExecutor() as pool:
            list(pool.map(start, approaches))

    def _compile(self, approach: Approach, timed: bool) -> None:
        with self._kept(approach, "compiling"):
            answer = self._ask(approach, "first")
            if approach.how != EAGER and timed:
                self.rows[approach]["cold_s"] = [answer["seconds"]]
            self.rows[approach] |= self._ask(approach, "settle")

    def stop(self) -> None:
        """End all processes."""
        while self.processes:
            self.processes.popitem()[1].stop()

    def _alive(self) -> list[Approach]:
        """Those whose process still runs, in the order of the rows: the reference first."""
        return [approach for approach in self.rows if approach in self.processes]

    def _ask(self, approach: Approach, request: str) -> Any:
        return self.processes[approach].ask(request)

    @contextlib.contextmanager
    def _kept(self, approach: Approach, doing: str) -> Any:
        start = time.perf_counter()
        try:
            yield
        except Exception as error:  # the row shows it
            self.rows[approach]["error"] = str(error)
            if approach in self.processes:
                self.processes.pop(approach).stop()
        self.say(
            f"{approach.name}: {doing}, {time.perf_counter() - start:.1f} s {self.rows[approach].get('error', '')}"
        )

    def _compare(self, approach: Approach, forecast: np.ndarray) -> None:
        if self.reference is None:
            self.reference = forecast
            return
        apart = np.abs(forecast.astype(np.float64) - self.reference)
        scale = float(np.abs(self.reference).mean())
        mae = float(apart.mean())
        self.rows[approach] |= {"mae": mae, "relative_mae": mae / scale, "max_diff": float(apart.max())}

    def result(self) -> dict[str, Any]:
        """What was measured, for JSON."""
        rows = list(self.rows.values())
        return {"size": str(self.setting.size), "floor": self.floor, "ratios": ratios(rows, self.floor), "rows": rows}


def chosen(only: Sequence[str]) -> list[Approach]:
    """The approaches that match one of the patterns, and the one that all are compared with.

    Raises:
        ValueError: a pattern matches none.
    """
    for pattern in only:
        if not any(fnmatch.fnmatch(a.name, pattern) for a in APPROACHES):
            raise ValueError(f"no approach {pattern!r}; there are {', '.join(a.name for a in APPROACHES)}")
    wanted = [a for a in APPROACHES if not only or any(fnmatch.fnmatch(a.name, p) for p in only)]
    return wanted if REFERENCE in wanted else [REFERENCE, *wanted]


def run(
    sizes: Sequence[str], only: Sequence[str], config: str, layers: int | None, rounds: int, warm: bool,
    compiles: int, at_once: bool, device: str, backend: str, path: pathlib.Path | None, recorded: pathlib.Path | None = None,
) -> int:  # fmt: skip
    """Measure, print, and write ``path``, or print what was ``recorded``.

    The exit status is 1 where an approach failed, 2 where an argument is wrong.
    """
    if recorded is not None:
        return show_file(recorded)
    from rich.console import Console

    from fxpass.report.text import wide
    from fxpass.tools import figures

    try:
        if config not in CONFIGS:
            raise ValueError(f"no configuration {config!r}; there are {', '.join(CONFIGS)}")
        parsed, approaches, shape = [ForecastSize.parse(s) for s in sizes], chosen(only), CONFIGS[config]()
        if layers is not None:
            shape = replace(shape, num_layers=layers, spacewise_every_n_layers=layers)
    except ValueError as error:
        print(f"kvfix: {error}", file=sys.stderr)
        return 2
    progress, console = Console(stderr=True, soft_wrap=True), wide()
    start = time.perf_counter()

    def say(size: ForecastSize, text: str) -> None:
        progress.print(f"[{time.perf_counter() - start:4.0f} s] {size}: {text}", markup=False, highlight=False)

    done: list[dict[str, Any]] = []
    facts = {"command": figures.command(sys.argv[1:]), "config": config, "layers": shape.num_layers}
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kvfix-bench-"))
    benches = [
        Bench(approaches, Setting(size, shape, device, backend), folder / str(size), functools.partial(say, size))
        for size in parsed
    ]
    try:
        if at_once:
            with ThreadPoolExecutor(len(benches)) as pool:
                list(pool.map(functools.partial(Bench.compile, at_once=True), benches))
        for bench in benches:
            if not at_once:
                bench.compile(at_once=False)
            bench.measure(rounds)
            for _ in itertools.chain([None], bench.compile_again(warm, compiles)):
                if path is not None:
                    figures.write_figures(path, {**facts, "sizes": [*done, bench.result()]})
            done.append(bench.result())
            show(console, done[-1])
    finally:
        for bench in benches:
            bench.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return int(any(row.get("error") for result in done for row in result["rows"]))


def show(console: Any, result: dict[str, Any]) -> None:
    """Print the tables and ratios of one size."""
    console.print(f"\n[bold]{result['size']}[/bold]")
    for table in tables(result["rows"]):
        console.print(table)
    if result["floor"]:
        text = "Reading {weights_mb:.0f} MB of weights once: {floor_ms:.3f} ms, {gb_per_s:.0f} GB/s"
        console.print(text.format(**result["floor"]))
    for name, ratio in result["ratios"].items():
        console.print(f"{name}: {ratio:.2f}")
    for reason in sorted({reason for row in result["rows"] for reason in row.get("skips") or ()}):
        console.print(reason)


def show_file(path: pathlib.Path) -> int:
    """Print what `run` has written to ``path``; the exit status is 2 where that is no such file."""
    from fxpass.report.text import wide

    try:
        found = json.loads(path.read_text())
        device, torch, commit, date = (found[name] for name in ("device", "torch", "commit", "date"))
    except (OSError, ValueError, KeyError) as error:
        print(f"kvfix: {path} is no file of kvfix bench: {type(error).__name__}", file=sys.stderr)
        return 2
    console = wide()
    console.print(f"{device}, torch {torch}, commit {commit}, {date}: {found['command']}")
    for result in found["sizes"]:
        show(console, result)
    return 0
