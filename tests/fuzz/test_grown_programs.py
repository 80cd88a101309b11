"""A sample of the random programs with caches that grow: `python -m tests.fuzz.growth` runs as many as one likes."""

from __future__ import annotations

import pytest

import fxpass

from . import growth


@pytest.mark.parametrize("seed", [26, 30, 31])
def test_a_grown_program_is_eagers(seed: int) -> None:
    assert growth.run(seed, steps=16) == ""
    assert growth.outside() == [] and any(report.parts for report in fxpass.reports())


def test_with_aot_autograd() -> None:
    assert growth.run(44, "aot_eager", steps=10) == ""
