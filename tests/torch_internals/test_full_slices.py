"""The step that fills a cache is one like the others, unless a graph can tell a view of the cache from a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass

CAPACITY, WIDTH = 8, 4

READS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exp": lambda x, rows: rows.exp().sum(-2),
    "products": lambda x, rows: (x @ rows.mT).softmax(-1) @ rows,
    "clone": lambda x, rows: rows.clone().amax(-2),
    "contiguous": lambda x, rows: rows.contiguous().sum(-2),
    "heads side by side": lambda x, rows: rows.reshape(rows.shape[0], -1, WIDTH).sum(1),
    "two operands": lambda x, rows: (rows.sigmoid() * rows).sum(-2),
    "a larger type": lambda x, rows: rows.double().sum(-2),
}

COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda rows: rows.contiguous(),
    "reshape": lambda rows: rows.transpose(1, 2).reshape(-1, 3 * WIDTH),
    "flatten": lambda rows: rows.flatten(1, 2),
}

WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "the cache": lambda k, rows: k.mul_(2),
    "its first row": lambda k, rows: k[:, :, 0].fill_(9),
    "the copy": lambda k, rows: rows.add_(1),
}


def graphs(step: Callable[..., Any], shape: tuple[int, ...], order: tuple[int, ...], **how: Any) -> int:
    """How many graphs it takes to fill a cache of ``shape`` twice, its dims in memory in ``order``; each call is compared."""
    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "verify": 1}, **how)
    back = sorted(range(len(order)), key=order.__getitem__)
    ours, theirs = (torch.zeros([shape[d] for d in order]).permute(back) for _ in range(2))
    for _ in range(2):
        for p, n in [(0, 3), *((p, 1) for p in range(3, CAPACITY))]:
            x = torch.rand(*shape[:-2], n, WIDTH)
            torch.testing.assert_close(compiled(ours, x, p), step(theirs, x, p))
            torch.testing.assert_close(ours, theirs)
    return counters["stats"]["unique_graphs"] + sum(counters["graph_break"].values())


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("shape", [(2, CAPACITY, WIDTH), (2, 3, CAPACITY, WIDTH)], ids=["rows second", "rows third"])
@torch.no_grad()
def test_the_step_that_fills_a_cache(shape: tuple[int, ...], read: str) -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        end = p + x.shape[-2]
        k[..., p:end, :] = x
        return READS[read](x, k[..., :end, :])

    assert graphs(step, shape, tuple(range(len(shape)))) == 2


@pytest.mark.parametrize("dynamic", [True, False])
@torch.no_grad()
def test_with_sizes_that_are_all_symbols_or_none(dynamic: bool) -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, :, p : p + x.shape[2]] = x
        return k[:, :, : p + x.shape[2]].exp().sum(2)

    assert graphs(step, (2, 3, CAPACITY, WIDTH), (0, 1, 2, 3), dynamic=dynamic) == 2


IN_USE = [(copy, write) for copy in COPIES for write in WRITES if copy == "contiguous" or write != "the copy"]
"""Without copies that are refused when they are written."""


@pytest.mark.parametrize("copy, written", IN_USE)
@torch.no_grad()
def test_a_view_that_is_in_use_while_something_is_written(copy: str, written: str) -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        end = p + x.shape[2]
        k[:, :, p:end] = x
        rows = COPIES[copy](k[:, :, :end])
        WRITES[written](k, rows)
        return (rows * rows).sum()

    order = (0, 2, 1, 3) if copy == "reshape" else (0, 1, 2, 3)
    assert graphs(step, (2, 3, CAPACITY, WIDTH), order) == 3


@torch.no_grad()
def test_a_branch_of_the_models_own_is_a_guard() -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        end = p + x.shape[1]
        k[:, p:end] = x
        rows = k[:, :end].exp()
        return rows.sum(1) if end != k.shape[1] else rows.amax(1)

    assert graphs(step, (2, CAPACITY, WIDTH), (0, 1, 2)) == 3


@torch.no_grad()
def test_a_check_of_the_models_own_is_a_guard() -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x
        rows = k[:, : p + 1].exp()
        torch._check(WIDTH * (p + 1) != WIDTH * k.shape[1], lambda: "the cache is full")
        return rows.sum(1)

    torch._dynamo.reset()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    k, x = torch.zeros(2, CAPACITY, WIDTH), torch.rand(2, 1, WIDTH)
    for p in range(CAPACITY - 1):
        compiled(k, x, p)
    with pytest.raises(RuntimeError, match="the cache is full"):
        compiled(k, x, CAPACITY - 1)
