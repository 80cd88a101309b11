"""A sample of the random programs, and what makes them worth running: a seed gives one program, and what is wrong is seen."""

from __future__ import annotations

import logging
import os

import pytest

import fxpass

from . import mutants, shrink
from .choices import Choices
from .driver import Outcome, Side, load, run
from .driving import Event
from .program import Program, generate
from .same import Failure
from .structures import STRUCTURES

PROGRAMS = int(os.environ.get("KVFIX_FUZZ_PROGRAMS", "75"))
"""CI has time for so many; `KVFIX_FUZZ_PROGRAMS=300` runs more."""
SHARE = 25
"""Programs a test."""


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(20000, 20000 + PROGRAMS, SHARE))
def test_programs(first: int):
    """Numbers, buffers, errors, passes, and no more graphs than stock's."""
    outcomes = [run(generate(seed)) for seed in range(first, first + SHARE)]
    ours = [o for o in outcomes if o.failure and not o.stock_fails]
    failed = [(o.seed, o.failure.kind, o.failure.detail) for o in ours if o.failure]
    assert not failed, "python -m tests.fuzz --shrink --seed N shows the smallest program that fails so"


def test_a_seed_gives_one_program():
    assert generate(7).text == generate(7).text != generate(8).text
    assert generate(7).events == generate(7).events


def test_a_choice_changes_nothing_but_itself():
    plain, given = Choices(3), Choices(3, {"a": 0})
    for name in "abc":
        plain.pick(name, range(50))
        given.pick(name, range(50))
    assert given.made == {**plain.made, "a": 0} != plain.made


@pytest.mark.parametrize("seed", range(0, 4000, 200))
def test_programs_are_python(seed: int):
    for own in range(seed, seed + 200):
        compile(generate(own).text, "program", "exec")


def test_all_choices_at_their_simplest_make_the_plain_program():
    program = generate(5, dict.fromkeys(generate(5).made, 0))
    simplest = generate(5, dict.fromkeys(program.made, 0))
    assert "c.k0[:, s0:e0] = x" in simplest.text and len(simplest.events) == 4
    assert run(simplest).failure is None


def test_shrinking_keeps_the_failure_and_drops_the_rest(monkeypatch: pytest.MonkeyPatch):
    def fails_on_softmax(program: Program, compiler: str) -> Outcome:
        return Outcome(program.seed, Failure("output", 0, "")) if "softmax" in program.text else Outcome(program.seed)

    monkeypatch.setattr(shrink, "run", fails_on_softmax)
    seed = max((s for s in range(100) if "softmax" in generate(s).text), key=lambda s: len(generate(s).text))
    small = shrink.smallest(seed)
    assert "softmax" in small.text and len(small.text) < len(generate(seed).text) * 0.8


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.what.replace(" ", "_"))
def test_mutants_apply(mutant: mutants.Mutant):
    code = mutants.function(mutant.name).__code__
    with mutants.changed(mutant.name, mutant.old, mutant.new):
        assert mutants.function(mutant.name).__code__ is not code
    assert mutants.function(mutant.name).__code__ is code


SEEN = """
import torch
class Cache:
    def __init__(c, b, new): c.k = new((b, 4), torch.float32); c.n = 0
def seek(c, p): c.n = p
def rows(n, b): return torch.randn(b, n)
def given(p, n): return ()
def step(c, x): c.k[:, c.n:c.n + 1] = x; c.n += 1; return c.k.sum(),
"""


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ("return c.k.sum() + 1,", "output"),
        ("return c.k[:, :1].sum(),", "output"),
        ("return c.k.sum().double(),", "output"),
        ("c.k += 1; return c.k.sum() - 8,", "state"),
        ("c.n += 1; return c.k.sum(),", "state"),
        ("raise ValueError('no')", "raised"),
    ],
)
def test_differences_are_seen(broken: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    """The other side runs another step: the driver tells what is different."""
    program = Program(0, SEEN, [Event(0, 1)] * 3, None, "zeros", False, 0, {})
    other = load(Program(0, SEEN.replace("return c.k.sum(),", broken), [], None, "zeros", False, 0, {}))["step"]
    monkeypatch.setattr("torch.compile", lambda fn, **how: other)
    outcome = run(program, stock="never")
    assert outcome.failure is not None and outcome.failure.kind == kind


def test_an_error_of_eager_must_be_one_of_ours(monkeypatch: pytest.MonkeyPatch):
    program = Program(0, SEEN.replace("return c.k.sum(),", "raise ValueError"), [Event(0, 1)], None, "zeros", False, 0, {})
    monkeypatch.setattr("torch.compile", lambda fn, **how: lambda c, x: (c.k.sum(),))
    outcome = run(program, stock="never")
    assert outcome.failure is not None and outcome.failure.kind == "silent"


def test_after_an_error_of_eager_both_sides_go_on_alike():
    step = "c.k[:, c.n] = 7\n    assert c.n != 1\n    c.k[:, c.n:c.n + 1] = x\n    c.n += 1\n    return c.k.sum(),"
    text = SEEN.replace("def step(c, x): c.k[:, c.n:c.n + 1] = x; c.n += 1; return c.k.sum(),", f"def step(c, x):\n    {step}")
    events = [Event(0, 1), Event(0, 1), Event(0, 1, "rewind", to=2), Event(0, 1)]
    outcome = run(Program(0, text, events, None, "zeros", False, 0, {}), stock="never")
    assert (outcome.failure, outcome.eager_errors, outcome.calls) == (None, 1, 3)


@pytest.mark.parametrize("rows", [0, 2])
def test_small_caches_are_read_through_windows(rows: int):
    text = SEEN.replace("(b, 4)", "(b, 8)").replace("return c.k.sum(),", "return c.k[:, :c.n].sum(),")
    program = Program(0, text, [Event(0, 1)] * 6, None, "nan", False, rows, {})
    assert run(program, stock="never").failure is None
    assert ("window" in fxpass.reports()[-1].kinds.values()) == bool(rows)


def test_both_sides_start_alike():
    program = generate(11)
    module = load(program)
    sides = [Side(module, program, module["step"]) for _ in range(2)]
    first, second = ({k: str(v) for k, v in vars(side.cache(0)).items()} for side in sides)
    assert first == second


@pytest.mark.parametrize("place", range(len(STRUCTURES)), ids=[*STRUCTURES])
def test_each_structure_runs(place: int):
    """In eager, in the plain program."""
    program = generate(5, {**dict.fromkeys(generate(5).made, 0), "structured": 1, "structure": place})
    module = load(program)
    side = Side(module, program, module["step"])
    for p, n in ((0, 3), (3, 1), (4, 1)):
        results = side.call(0, module["rows"](n, 2), module["given"](p, n), eager=True)
        assert len(results) == 2 and results[1].isfinite().all()
