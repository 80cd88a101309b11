"""Packages that nobody here wrote on a GPU, one test for each row of the last table of docs/reach.md.

Needs what ``tests/reach/setup.sh`` installs. The figures go to benchmarks/results with
``kvfix reach tests.reach.cases --device cuda --compiler inductor --json benchmarks/results/reach.json``.
"""

from __future__ import annotations

import pytest
from reach.cases import CASES, Case

from fxpass.tools import reach

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_decode_steps_are_recorded(case: Case) -> None:
    row = reach.run(case, "inductor", "cuda")
    assert row.problems == [], row
    assert row.launches is not None and row.launches[0] > 0, row
    assert row.skips == 0, row
