"""The self-check on a GPU compares what runs there: of a recording its replays, too."""

from __future__ import annotations

import collections
import gc

import pytest
import torch
from lifetime import runs

import fxpass
from fxpass.tools.counting import recordings

pytestmark = pytest.mark.gpu
CALLS = (4, 1, 1, 1, 1, 1)


def decode(verify: int) -> None:
    model = runs.Decoder("cuda")
    run = torch.compile(model, backend="kvfix", options={"verify": verify})
    cache, x = runs.Cache(16, "cuda"), torch.randn(2, 4, runs.WIDTH, device="cuda")
    with torch.no_grad():
        for rows in CALLS:
            run(x[:, :rows], cache)


def skip_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each CUDA graph runs once, right after it is recorded; afterwards its results are what they were."""
    replayed: collections.Counter[int] = collections.Counter()
    stock = torch.cuda.CUDAGraph.replay

    def replay(self: torch.cuda.CUDAGraph) -> None:
        replayed[id(self)] += 1
        if replayed[id(self)] == 1:
            stock(self)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", replay)


def test_replays_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third call of the decode graph replays what the second has recorded."""
    skip_replays(monkeypatch)
    with pytest.raises(fxpass.KvfixError, match="graph 1, call 3"):
        decode(verify=len(CALLS))


def test_what_runs_before_the_recording_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above tells a replay from the calls before it."""
    skip_replays(monkeypatch)
    decode(verify=2)


def recorded(verify: int) -> int:
    """How much is recorded by a decode of its own."""
    torch._dynamo.reset()
    fxpass.reset()
    gc.collect()
    assert not recordings()
    decode(verify)
    return recordings()


def test_with_the_self_check_there_is_as_much_recorded() -> None:
    assert recorded(verify=len(CALLS)) == recorded(verify=0) > 0
