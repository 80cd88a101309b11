"""The garbage collector rests while Dynamo traces for kvfix and while a graph is compiled, and for nobody else."""

from __future__ import annotations

import gc

import pytest
import torch

from fxpass import backend

seen: list[bool] = []


@torch.compiler.assume_constant_result
def look() -> int:
    seen.append(gc.isenabled())
    return 1


@pytest.fixture
def compiling(monkeypatch):
    """Whether the collector was on when graphs were handed off."""
    compiled: list[bool] = []
    stock = backend.untouched
    monkeypatch.setattr(backend, "untouched", lambda *a: [compiled.append(gc.isenabled()), stock(*a)][1])
    seen.clear()
    return compiled


@pytest.mark.parametrize("enabled", [True, False])
def test_it_rests_and_is_as_before_afterwards(compiling, enabled) -> None:
    model = torch.compile(lambda x: x + look(), backend="kvfix", options={"compiler": "eager"})
    try:
        gc.enable() if enabled else gc.disable()
        assert model(torch.ones(2)).tolist() == [2, 2]
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
    assert (set(seen), compiling) == ({False}, [False])


def test_an_error_wakes_it(compiling) -> None:
    def model(x):
        torch._dynamo.graph_break()
        return x

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(model, backend="kvfix", fullgraph=True)(torch.ones(2))
    assert gc.isenabled()


def test_other_backends_are_left_alone(compiling) -> None:
    torch.compile(lambda x: x + look(), backend="eager")(torch.ones(2))
    assert set(seen) == {True}
