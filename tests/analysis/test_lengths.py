"""A cache that is cut by the size of another tensor: the size is a position, unless that tensor itself is worked on."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass
from fxpass.analysis.lengths import bounds_of_caches

CAPACITY = 16
W = torch.linspace(-1, 1, 16).view(4, 4)
Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of a cache [2, 16, 4], a tensor that is longer on each call, [2, n, 4], and a row [2, 1, 4]."""


def written_in_place(k: Tensor, x: Tensor, q: Tensor) -> Tensor:
    k[:, : x.shape[1]].mul_(0.5)
    return k @ W


def copied_into(k: Tensor, x: Tensor, q: Tensor) -> Tensor:
    k[:, : x.shape[1]] = x
    return (k @ W).sum(1)


def with_a_mask(k: Tensor, x: Tensor, q: Tensor) -> Tensor:
    n = x.shape[1]
    return (q @ k[:, :n].mT + x[:, :, 0][:, None]).softmax(-1) @ k[:, :n]


def with_its_last_row(k: Tensor, x: Tensor, q: Tensor) -> Tensor:
    k[:, x.shape[1] - 1 : x.shape[1]] = x[:, -1:]
    return (q @ k[:, : x.shape[1]].mT).softmax(-1) @ k[:, : x.shape[1]]


POSITIONS: dict[str, Step] = {
    "read": lambda k, x, q: (k[:, : x.shape[1]] @ W).sum(1),
    "read by size()": lambda k, x, q: (k[:, : x.size(1) - 1] @ W).amax(1),
    "read by the number of elements": lambda k, x, q: (k[:, : x.numel() // 8] @ W).sum(1),
    "windowed": lambda k, x, q: (k[:, x.shape[1] - 3 : x.shape[1]] @ W).sum(1),
    "one row": lambda k, x, q: k[:, x.shape[1]] @ W,
    "attended to": lambda k, x, q: sdpa(q, k[:, : x.shape[1]], k[:, : x.shape[1]]),
    "nothing heavy": lambda k, x, q: k[:, : x.shape[1]].exp().sum(1),
    **{step.__name__: step for step in (written_in_place, copied_into, with_a_mask, with_its_last_row)},
}
OTHERS: dict[str, Step] = {
    "a prompt": lambda k, x, q: sdpa(x @ W, k[:, : x.shape[1]], k[:, : x.shape[1]]).sum(1),
    "a table that is added": lambda k, x, q: ((x + k[:, : x.shape[1]]) @ W).sum(1),
}


def run(step: Step, compiler: str) -> fxpass.Report:
    """Compare some calls with eager; the report of the last graph."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler, "strict": True})
    mine, eager = torch.rand(2, 2, CAPACITY, 4).unbind()
    mine.copy_(eager)
    for n in range(6, 10):
        x, q = torch.rand(2, n, 4), torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(mine, x, q), step(eager, x, q))
        assert torch.equal(mine, eager)
    return fxpass.reports()[-1]


@torch.no_grad()
@pytest.mark.parametrize("name, compiler", [*((name, "eager") for name in POSITIONS), ("with_a_mask", "aot_eager")])
def test_a_size_that_cuts_a_cache_is_a_position(name: str, compiler: str) -> None:
    report = run(POSITIONS[name], compiler)
    assert [s.kind for s in report.symbols if "x" in s.of] == ["position"] and report.rewritten
    heavy = "whole" if name == "nothing heavy" else "core"
    assert [part for part, _, _ in report.parts if part != "prologue"] == [heavy]
    assert not report.unbuffered and not report.outside


@torch.no_grad()
@pytest.mark.parametrize("name", OTHERS)
def test_the_length_of_what_is_worked_on_is_none(name: str) -> None:
    """Not even strict objects: it is a prompt. The report says what keeps it dynamic."""
    report = run(OTHERS[name], "eager")
    assert [s.kind for s in report.symbols if "x" in s.of] == ["growth"] and not report.rewritten
    assert any(note.startswith("KV205") and "test_lengths.py" in note for note in report.notes)


def test_numbers_that_are_made_of_each_other_are_walked_once() -> None:
    graph = fx.Graph()
    cache, size, other = (graph.placeholder(name) for name in ("cache", "size", "other"))
    cache.meta["val"], size.meta["val"], other.meta["val"], end = torch.zeros(2, CAPACITY, 4), 3, 3, size
    for _ in range(60):
        more = graph.call_function(operator.add, (end, 0))
        end = graph.call_function(max, (end, more))
        more.meta["val"] = end.meta["val"] = 3
    graph.call_function(torch.ops.aten.slice.Tensor, (cache, 1, 0, end)).meta["val"] = cache.meta["val"][:, :3]
    assert bounds_of_caches(graph, {size, other}) == {size}
    assert bounds_of_caches(graph, set()) == set()
