"""Packages that nobody here wrote, one test for each row of the table in docs/reach.md.

Set up with ``tests/reach/setup.sh`` and run with ``pytest -m packages``; not part of the default run.
"""

from __future__ import annotations

import importlib.util

import pytest

from fxpass.tools import reach

from .cases import CASES, Case
from .runner import heavy, parts_seen

pytestmark = pytest.mark.packages

PACKAGES = {
    "toto-ts": "toto",
    "timesfm": "timesfm",
    "litgpt": "litgpt",
    "llama-models": "llama_models",
    "transformers": "transformers",
    "x-transformers": "x_transformers",
    "whisper": "whisper",
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_package(case: Case) -> None:
    package = PACKAGES[case.name.split(",")[0]]
    assert importlib.util.find_spec(package) is not None, f"{package} is not installed: run tests/reach/setup.sh"
    with parts_seen() as cuts:
        row = reach.run(case)
    assert row.problems == [], row
    assert row.graphs == case.graphs, "fewer than the table says"
    for parts in cuts:
        assert [bool(heavy(p)) for p in parts if p.static] == [True], row
        assert not any(heavy(p) for p in parts if not p.static), row
