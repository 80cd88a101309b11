"""A seeded part of the small scope; all of it is run by ``python -m tests.sweeps scope --all``."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor

from . import scope
from .bounded import check

PROGRAMS = scope.programs()
CASES = random.Random(4).sample(list(itertools.product(PROGRAMS, scope.buffers())), 90)


@pytest.mark.parametrize("name, buffer", CASES, ids=[f"{name}-{'-'.join(map(str, buffer))}" for name, buffer in CASES])
def test_equal_or_refused(name: str, buffer: scope.Buffer) -> None:
    outcome = scope.run(PROGRAMS[name], buffer)
    assert outcome.kind not in ("wrong", "crash"), outcome.reasons


SIZES = {
    "reshape": lambda x, rows: x.round().roll(1).reshape(-1, rows.shape[1]).sum(0),
    "expand": lambda x, rows: x.roll(1).sum().expand(rows.shape[1]),
    "zeros": lambda x, rows: torch.zeros(rows.shape[1]).roll(1) + x.roll(1).sum(),
    "a number": lambda x, rows: x.roll(1).sum() * rows.shape[1],
}


@pytest.mark.parametrize("name", SIZES)
def test_the_size_of_a_slice_beside_what_is_refused(name: str) -> None:
    """The rows are read in full, their size in the model is still that of the slice."""

    def program(p: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rows = v[:, :p]
        return SIZES[name](k[:p], rows), rows.sum(1)

    outcome = check(program, [torch.randn(5, 5), torch.randn(3, 5)], [3, 2, 4, 5])
    assert outcome.kind == "refused", outcome
