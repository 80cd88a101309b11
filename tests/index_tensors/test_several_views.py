"""Views of an index tensor that come several at once: each is followed, and a write through one is seen in the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_table import contents, traced
from torch import Tensor
from torch._dynamo.utils import counters

from fxpass.index_tensors.table import Table

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "unbind": lambda idx: idx.unbind(0)[1],
    "unbind of torch": lambda idx: torch.unbind(idx)[1],
    "unpacked": lambda idx: (lambda a, b, c: b)(*idx),
    "listed": lambda idx: list(idx)[1],
    "split": lambda idx: idx.split(1)[1],
    "split in sizes": lambda idx: torch.split(idx, [2, 1])[0][1],
    "chunk": lambda idx: idx.chunk(2)[0][-1],
    "of two dims": lambda idx: idx.view(1, 3).unbind(-1)[1],
}


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_written_through_one(view: str) -> None:
    def step(idx):
        own = VIEWS[view](idx)
        own.add_(5)
        idx[0] = idx[1] * 2

    assert contents(step, torch.tensor([1, 2, 3])) == [(14, 7, 3)]


@pytest.mark.parametrize("view", ["unbind", "split", "chunk"])
def test_nothing_is_known_of_them_once_the_whole_is_lost(view: str) -> None:
    def step(idx):
        parts = idx.unbind(0) if view == "unbind" else getattr(idx, view)(3 if view == "chunk" else 1)
        idx.sqrt_() if idx.is_floating_point() else idx.bitwise_left_shift_(1)  # no rule
        parts[1].add_(1)
        return parts[1] + 1

    graph, (idx,) = traced(step, torch.tensor([1, 2, 3]))
    table = Table.of(graph)
    assert table.contents(idx) is None
    assert table.entry([n for n in graph.nodes if n.op.startswith("call")][-1]) is None


@pytest.mark.parametrize("view", VIEWS)
@torch.no_grad()
def test_a_position_among_them(view: str) -> None:
    def step(k: Tensor, idx: Tensor, x: Tensor) -> Tensor:
        start = int(VIEWS[view](idx))
        k[:, start : start + 1] = x
        idx += 1
        return k[:, : start + 1].amax(1)

    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    (ours, theirs), (i, j) = torch.zeros(2, 2, 8), torch.zeros(2, 3, dtype=torch.int64)
    for _ in range(4):
        x = torch.rand(2, 1)
        assert torch.equal(compiled(ours, i, x), step(theirs, j, x))
        assert torch.equal(ours, theirs) and torch.equal(i, j)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
