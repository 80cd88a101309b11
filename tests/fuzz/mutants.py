"""kvfix broken on purpose, one line at a time: ``python -m tests.fuzz.mutants``. The programs must tell.

A mutant replaces a piece of the source of one function. It is found by a program that holds as kvfix is, and does not with
the mutant. Programs without what `HINTS` names cannot tell, and are not run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from . import runner
from .driver import Outcome, run
from .mutations import HINTS, MUTANTS, NAMES, Mutant
from .program import Program, generate


def function(name: str) -> types.FunctionType:
    """The function that `NAMES` calls ``name``."""
    module, _, path = NAMES[name].partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def changed(name: str, old: str, new: str) -> Iterator[None]:
    """The function called ``name`` with ``new`` in the place of ``old``, wherever it has been registered."""
    fn = function(name)
    source = textwrap.dedent(inspect.getsource(fn))
    source = source[source.index("def ") :]
    if old not in source:
        raise LookupError(f"{NAMES[name]} holds no {old!r}")
    made: dict[str, Any] = {}
    exec(f"from __future__ import annotations\n{source.replace(old, new, 1)}", dict(fn.__globals__), made)
    before, fn.__code__ = fn.__code__, made[fn.__name__].__code__
    try:
        yield
    finally:
        fn.__code__ = before


def candidates(mutant: Mutant, first: int, count: int) -> list[Program]:
    """The programs that hold what the mutant is about, the shortest first: they take the least time."""
    hint = re.compile(mutant.hint or HINTS[mutant.name])
    made = [generate(seed) for seed in range(first, first + count)]
    return sorted((p for p in made if hint.search(f"{p.text}{p.events}")), key=lambda p: len(p.text))


def found(mutant: Mutant, first: int, count: int, most: int) -> tuple[int, str]:
    """Which of ``count`` programs finds ``mutant``, and how; 0 where none of the first ``most`` that may do so does."""
    tried = 0
    for program in candidates(mutant, first, count)[:most]:
        with changed(mutant.name, mutant.old, mutant.new):
            broken = run(program, stock="never")
        tried += 1
        if broken.failure is None and not broken.unfit and not broken.refused:
            continue
        right = _right(program)
        if right.failure is None and (how := _told(right, broken)):
            return program.seed - first + 1, how
    return 0, f"not in {tried} programs"


def _told(right: Outcome, broken: Outcome) -> str:
    """How ``broken`` differs from ``right``: in numbers, by a post-condition, or by what is refused."""
    if broken.failure is not None:
        return f"{broken.failure.kind}: {broken.failure.detail}"
    if broken.unfit != right.unfit:
        return f"check: {[reason for reason in broken.unfit if reason not in right.unfit][:1]}"
    new = [reason for reason in broken.refused if reason not in right.refused]
    return f"refused: {new[0]}" if new else ""


_known: dict[int, Outcome] = {}


def _right(program: Program) -> Outcome:
    """What comes of ``program`` where nothing is broken."""
    if program.seed not in _known:
        _known[program.seed] = run(program, stock="never")
    return _known[program.seed]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--most", type=int, default=1000, help="how many of them to try on a mutant")
    parser.add_argument("--only", type=int, nargs="*", help="the mutants at these places of the list")
    parser.add_argument("--json")
    args = parser.parse_args()
    runner.ready()
    left, rows = 0, []
    for mutant in (m for i, m in enumerate(MUTANTS) if args.only is None or i in args.only):
        count, how = found(mutant, args.seed, args.programs, args.most)
        left += not count
        rows.append({"mutant": mutant.what, "programs": count, "how": how})
        print(f"{count or '-':>5}  {mutant.what:45} {how.splitlines()[0][:110]}", flush=True)
        if args.json:
            with open(args.json, "w") as file:
                json.dump(rows, file, indent=1)
    print(f"{left} of {len(rows)} mutants are not found")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
