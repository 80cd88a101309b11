"""Every minimal model, with clean and with dirty tails: eager's outputs, eager's buffers to the bit, one static core."""

from __future__ import annotations

import pytest

from .models import MODELS
from .runner import DIRT, heavy, run


@pytest.mark.parametrize("dirt", DIRT)
@pytest.mark.parametrize("name", MODELS)
def test_minimal(name: str, dirt: str) -> None:
    kind = MODELS[name]
    outcome = run(kind, dirt)
    sites = "\n".join(f"{r.name}: {r.unfit}\n{r}" for r in outcome.reports)
    assert (outcome.graphs, outcome.breaks) == (kind.graphs, 0), sites
    assert outcome.decode.refused == 0, sites
    assert outcome.decode.rewritten > 0, sites
    static = [p for p in outcome.parts if p.static]
    assert len(static) == 1 and heavy(static[0]), sites
    assert not any(heavy(p) for p in outcome.parts if not p.static), sites
