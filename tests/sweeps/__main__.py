"""``python -m tests.sweeps samples|scope``: run a sweep, print what it found, keep it as JSON.

python -m tests.sweeps samples --all --json benchmarks/results/op_samples.json
python -m tests.sweeps samples --seed 3 --count 500
python -m tests.sweeps samples --only sort --only topk --per-operator 4
python -m tests.sweeps scope --all --json benchmarks/results/small_scope.json
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Annotated

import typer

from . import samples as op_samples
from . import scope as small_scope
from .record import Record

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def main() -> None:
    """Sweeps over many small programs."""


@app.command()
def samples(
    all: Annotated[bool, typer.Option(help="every sample, or --count of them")] = False,
    count: int = 300,
    seed: int = 0,
    only: Annotated[list[str] | None, typer.Option(help="operators, by name")] = None,
    per_operator: Annotated[int, typer.Option(help="at most so many programs of each operator, by seed")] = 1_000_000,
    part: Annotated[str, typer.Option(help="i/n: the i-th of n parts")] = "0/1",
    json: Path | None = None,
) -> None:
    """PyTorch's own samples of its operators, cut at a position."""
    chosen = [op for op in op_samples.operators() if not only or op.name in only]
    share, of = map(int, part.split("/"))
    record = Record()
    for op in chosen[share::of]:
        name = op_samples.name_of(op)
        programs = [(sample, cut) for sample in op_samples.samples(op) for cut in op_samples.cuts(sample)]
        most = min(len(programs), per_operator if all or only else -(-count // len(chosen)))
        programs = random.Random(f"{seed} {name}").sample(programs, most)
        for sample, cut in programs:
            record.add(name, op_samples.describe(sample, cut), op_samples.run(sample, cut))
        if not programs:
            record.without(name)
        print(name, dict(record.groups[name]), flush=True)
    _finish(record, json, seed=seed, all=all, part=part)


@app.command()
def scope(
    all: Annotated[bool, typer.Option(help="every program on every buffer, or --count of them")] = False,
    count: int = 300,
    seed: int = 0,
    only: Annotated[list[str] | None, typer.Option(help="programs, by name")] = None,
    part: Annotated[str, typer.Option(help="i/n: the i-th of n parts")] = "0/1",
    json: Path | None = None,
) -> None:
    """All programs of a small grammar on all small buffers, for all positions."""
    chosen = {n: p for n, p in small_scope.programs().items() if not only or n in only}
    cases = list(itertools.product(chosen, small_scope.buffers()))
    share, of = map(int, part.split("/"))
    cases = cases[share::of] if all or only else random.Random(seed).sample(cases, count)
    record, before = Record(), ""
    for name, buffer in cases:
        if before not in ("", name):
            print(before, dict(record.groups[before]), flush=True)
        before = name
        record.add(name, str(tuple(buffer)), small_scope.run(chosen[name], buffer))
    _finish(record, json, seed=seed, all=all, part=part)


def _finish(record: Record, json: Path | None, **about: object) -> None:
    for fault in record.faults:
        print(fault)
    for kind, reasons in record.reasons.items():
        for reason, count in reasons.most_common(40):
            print(f"{kind:10} {count:6} {reason}")
    for what, counts in record.summary().items():
        print(what, ", ".join(f"{k} {n}" for k, n in counts.items()))
    if json is not None:
        record.save(json, **about)
    raise typer.Exit(1 if record.faults else 0)


if __name__ == "__main__":
    app()
