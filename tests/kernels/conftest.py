"""What the tests of the kernels share."""

from __future__ import annotations

from typing import Any

import pytest
from torch import fx

from fxpass import backend


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """Our own operators in the cores that are compiled, each made as for a recording on a GPU."""
    monkeypatch.setattr(backend, "is_recorded", lambda *args: True)
    targets: set[Any] = set()
    stock = backend.use_kernels

    def watched(gm: fx.GraphModule, marks: Any) -> None:
        stock(gm, marks)
        targets.update(n.target for n in gm.graph.nodes if getattr(n.target, "namespace", "") == "kvfix")

    monkeypatch.setattr(backend, "use_kernels", watched)
    return targets
