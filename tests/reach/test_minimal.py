"""Every minimal model, with NaN in the tails: eager's outputs, eager's buffers to the bit, one static core.

With huge numbers there, they run in tests/graph/test_propagate.py.
"""

from __future__ import annotations

import pytest

from fxpass import backend

from .models import CONTROLS, MODELS
from .runner import Outcome, heavy, run

THROUGH_INDUCTOR = ["Bounds", "HandWritten", "CatStored", "Window"]


@pytest.mark.parametrize("name", MODELS)
def test_minimal(name: str) -> None:
    check(name, run(MODELS[name], "nan"))


@pytest.mark.parametrize("name", MODELS)
def test_minimal_as_for_a_recording(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that stands around a recording, on the CPU: indices carried, buffers between the parts, results packed."""
    monkeypatch.setattr(backend, "is_recorded", lambda *_: True)
    check(name, run(MODELS[name], "nan", recorded=True))


@pytest.mark.inductor
@pytest.mark.parametrize("name", THROUGH_INDUCTOR)
def test_minimal_through_inductor(name: str) -> None:
    check(name, run(MODELS[name], "nan", "inductor"))


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_stay_untouched(name: str) -> None:
    outcome = run(CONTROLS[name])
    assert (outcome.graphs, outcome.breaks) == (CONTROLS[name].graphs, 0), outcome
    assert (outcome.rewritten, outcome.refused, outcome.cuts) == (0, 0, []), outcome


def check(name: str, outcome: Outcome) -> None:
    """Few graphs, nothing refused, and all of the work in one static part."""
    assert (outcome.graphs, outcome.breaks) == (MODELS[name].graphs, 0), outcome
    assert outcome.refused == 0, outcome
    assert outcome.rewritten > 0, outcome
    assert outcome.cuts, outcome
    for parts in outcome.cuts:
        assert [bool(heavy(p)) for p in parts if p.static] == [True], outcome
        assert not any(heavy(p) for p in parts if not p.static), outcome
