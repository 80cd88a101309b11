"""The smallest program that still fails in the same way: choice after choice is put to its simplest option."""

from __future__ import annotations

import gc

from .driver import Outcome, run
from .program import Program, generate
from .same import Failure


def smallest(seed: int, compiler: str = "eager", most: int = 400) -> Program:
    """The program of ``seed`` with as many choices as possible at their simplest, after at most ``most`` runs."""
    program = generate(seed)
    wanted = _way(run(program, compiler))
    if wanted is None:
        return program
    best, runs = dict(program.made), 0
    size = max(1, len(best) // 4)
    while size and runs < most:
        changed = False
        names = [name for name, place in best.items() if place]
        for at in range(0, len(names), size):
            given = {**best, **dict.fromkeys(names[at : at + size], 0)}
            runs += 1
            smaller = generate(seed, given)
            if smaller.made != best and _way(run(smaller, compiler)) == wanted:
                best, changed = dict(smaller.made), True
            if runs % 8 == 0:
                gc.collect()
            if runs >= most:
                break
        size = size if changed and size == 1 else size // 2
    return generate(seed, best)


def _way(outcome: Outcome) -> tuple[str, str] | None:
    """What makes two failures the same one."""
    failure: Failure | None = outcome.failure
    if failure is None or outcome.stock_fails:
        return None
    detail = failure.detail.split(":")[0] if failure.kind in ("raised", "silent", "pass") else ""
    return failure.kind, detail


def described(program: Program, outcome: Outcome) -> str:
    """The program, its calls, and what came of them, to be read."""
    lines = [program.text.rstrip(), ""]
    lines += [f"# tails: {program.dirt}" + (", as for a recording" if program.recorded else "")]
    lines += [f"# windows: {program.windows}"]
    lines += [f"# call {i}: {event}" for i, event in enumerate(program.events)]
    failure = outcome.failure
    lines.append(f"# {failure.kind} at call {failure.call}: {failure.detail}" if failure else "# holds")
    if outcome.stock_fails:
        lines.append(f"# stock: {outcome.stock_fails}")
    lines.append(f"# graphs and breaks: {outcome.graphs}, stock {outcome.stock}")
    lines.append(f"# {outcome.sites} sites, refused {outcome.refused}")
    lines += [f"# unfit: {reason}" for reason in outcome.unfit]
    return "\n".join(lines)
