"""Graphs, breaks and recompilations, counted."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._dynamo import graph_break

from fxpass.tools import running
from fxpass.tools.counting import Launches, counting, launched
from fxpass.tools.target import Target


def test_one_graph():
    with counting() as counts:
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2))
    assert (counts.graphs, counts.breaks, counts.recompiles) == (1, 0, 0)


def test_recompiles_are_compilations_beyond_the_first():
    with counting() as counts:
        compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
        for size in (2, 3, 4, 3):
            compiled(torch.ones(size))
    assert (counts.graphs, counts.breaks, counts.recompiles) == (3, 0, 2)


def test_the_rest_of_a_broken_function_is_no_recompilation():
    def broken(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        graph_break()
        return x * 2

    with counting() as counts:
        torch.compile(broken, backend="eager")(torch.ones(2))
    assert (counts.graphs, counts.breaks, counts.recompiles) == (2, 1, 0)


def test_each_block_starts_from_zero_and_counts_what_failed():
    def f(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    for _ in range(2):
        try:
            with counting() as counts:
                torch.compile(f, backend="eager")(torch.ones(2))
                raise KeyError
        except KeyError:
            pass
        assert (counts.graphs, counts.recompiles) == (1, 0)


def test_skipped_cuda_graphs():
    from torch._inductor.cudagraph_utils import cudagraphs_log

    level, handlers = cudagraphs_log.level, list(cudagraphs_log.handlers)
    with counting() as counts:
        cudagraphs_log.warning("skipping cudagraphs due to a cpu device")
        cudagraphs_log.warning("something else")
    assert counts.skips == ["skipping cudagraphs due to a cpu device"]
    assert (cudagraphs_log.level, cudagraphs_log.handlers) == (level, handlers)


def test_nothing_is_launched_on_a_cpu():
    with launched() as counts:
        torch.ones(2).add(1)
    assert (counts.graphs, counts.kernels) == (0, 0)


@pytest.mark.parametrize("recorded, launches", [([1, 1], (1, 3)), ([0, 1], (None, None))], ids=["a step", "a recording"])
def test_launches_are_those_of_a_call_that_records_nothing(
    recorded: list[int], launches: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the last call is looked at, unless something was compiled or recorded in it."""
    monkeypatch.setattr(running, "has_gpu", lambda: True)
    monkeypatch.setattr(running, "recordings", iter([*recorded, 1]).__next__)
    monkeypatch.setattr(running, "launched", lambda: contextlib.nullcontext(Launches(1, 3)))
    found = running.explained(running.calls(Target(torch.neg, (torch.ones(2),), {}), 3, False, "kvfix", {"compiler": "eager"}))
    assert (found.counts[running.LAUNCHES], found.counts["launches of kernels in a call"]) == launches
