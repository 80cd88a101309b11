"""``python -m tests.fuzz``: run programs, show one, or shrink one that fails."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from . import record, runner, shrink
from .driver import run
from .program import generate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", type=int, default=300)
    parser.add_argument("--compiler", default="eager", choices=("eager", "aot_eager", "inductor"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--stock", default="asked", choices=("asked", "always", "never"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--json", help="write the tally here")
    parser.add_argument("--record", type=Path, help="add the tally to this file, of all that was run")
    parser.add_argument("--show", action="store_true", help="print the program of --seed, and what comes of it")
    parser.add_argument(
        "--shrink", action="store_true", help="print the smallest program that fails as that of --seed does"
    )
    args = parser.parse_args()
    if args.shrink or args.show:
        runner.ready()
        program = shrink.smallest(args.seed, args.compiler) if args.shrink else generate(args.seed)
        print(shrink.described(program, run(program, args.compiler)))
        return 0
    began = time.perf_counter()
    found = runner.programs(args.seed, args.programs, args.compiler, args.workers, args.stock)
    summary = runner.tally(runner.watched(found, args.seconds))
    summary["seconds"] = round(time.perf_counter() - began, 1)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(summary, file, indent=1)
    if args.record:
        record.add(args.record, args.seed, args.compiler, summary)
    print(json.dumps({k: v for k, v in summary.items() if not isinstance(v, list)}, indent=1))
    return int(bool(summary["failed"]))


if __name__ == "__main__":
    raise SystemExit(main())
