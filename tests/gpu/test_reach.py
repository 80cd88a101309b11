"""Packages that nobody here wrote on a GPU, one test for each row of the last table of docs/reach.md.

Needs what ``tests/reach/setup.sh`` installs. The figures go to benchmarks/results with
``kvfix reach tests.reach.cases --device cuda --compiler inductor --json benchmarks/results/reach.json``.
"""

from __future__ import annotations

import pytest
import torch
from reach.cases import CASES, Case

from fxpass.tools import reach

pytestmark = pytest.mark.gpu


FILLING = pytest.mark.xfail(
    torch.__version__ < "2.12",
    reason="the step that fills the window: the length of the keys and the position are one symbol",
    strict=True,
)


@pytest.mark.parametrize("case", [pytest.param(c, marks=[FILLING] * (c.name == "transformers, dynamic window")) for c in CASES],
                         ids=lambda c: c.name)  # fmt: skip
def test_decode_steps_are_recorded(case: Case) -> None:
    row = reach.run(case, "inductor", "cuda", launched_by_stock=False)
    assert row.problems == [], row
    assert row.launches is not None and row.launches[0] > 0, row
    assert row.skips == 0, row
