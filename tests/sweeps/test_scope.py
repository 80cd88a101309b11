"""A seeded part of the small scope; all of it is run by ``python -m tests.sweeps scope --all``."""

from __future__ import annotations

import itertools
import random

import pytest

from . import scope

PROGRAMS = scope.programs()
CASES = random.Random(4).sample(list(itertools.product(PROGRAMS, scope.buffers())), 90)


@pytest.mark.parametrize("name, buffer", CASES, ids=[f"{name}-{'-'.join(map(str, buffer))}" for name, buffer in CASES])
def test_equal_or_refused(name: str, buffer: scope.Buffer) -> None:
    outcome = scope.run(PROGRAMS[name], buffer)
    assert outcome.kind not in ("wrong", "crash"), outcome.reasons
