"""Long work shows on a terminal what it is at; an interrupted compilation leaves nothing behind."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from small_models import Attention, AttributeCache, BoundsCache, ItemCache, kvfix, same_step, steps

from fxpass import api, backend
from fxpass.execute.compilation.regions import Region
from fxpass.execute.plans import cores
from fxpass.report import progress
from fxpass.rewriting import driver


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def decode() -> None:
    model, cache = Attention(), ItemCache()
    compiled = kvfix(model)
    with torch.no_grad():
        for x in steps(decoded=2):
            compiled(x, cache)


def test_a_terminal_shows_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    show = progress._show
    monkeypatch.setattr(progress, "_show", lambda: (shown.extend(progress._shown.stages[-1:]), show()))
    decode()
    assert {"kvfix: graph 0: normal form", "kvfix: graph 1: rewrite"} < set(shown)
    assert any(text.startswith("kvfix: compiling the core, ") for text in shown)
    assert not progress._shown.stages and progress._shown.line is None


def test_no_terminal_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(progress, "Console", side_effect=AssertionError("shown")):
        decode()
    assert "kvfix" not in capfd.readouterr().err


def interrupted(stock: Callable[..., Any]) -> Callable[..., Any]:
    """``stock``, which the user interrupts when it is called first."""
    calls = iter([KeyboardInterrupt])

    def run(*args: Any, **kwargs: Any) -> Any:
        for error in calls:
            raise error
        return stock(*args, **kwargs)

    return run


PLACES = {
    "normal form": (api, "normal_form"),
    "analysis": (driver, "decide"),
    "sweep": (driver, "sweep"),
    "cut": (cores, "split"),
    "hand-off": (backend, "assemble"),
    "compilation of a part": (Region, "_compile"),
}


@torch.no_grad()
@pytest.mark.parametrize(
    "place, cache_type",
    [*((place, ItemCache) for place in PLACES), ("sweep", BoundsCache), ("compilation of a part", AttributeCache)],
)
def test_an_interrupted_call_can_be_made_again(place: str, cache_type: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = PLACES[place]
    model, cache, eager_cache = Attention(), cache_type(), cache_type()
    compiled, inputs = kvfix(model, "aot_eager", verify=0), steps(decoded=3)
    same_step("prefill", model, compiled, inputs[0], eager_cache, cache)
    before = [state.clone() for state in cache.state()]
    monkeypatch.setattr(owner, name, interrupted(getattr(owner, name)))
    with pytest.raises(KeyboardInterrupt):
        compiled(inputs[1], cache)
    assert all(torch.equal(a, b) for a, b in zip(cache.state(), before, strict=True))
    for x in inputs[1:]:
        same_step("decode", model, compiled, x, eager_cache, cache)
    assert not progress._shown.stages
