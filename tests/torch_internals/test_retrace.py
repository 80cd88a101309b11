"""Tracing a graph again asks nothing about its sizes: the step that fills a cache is one like the others."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass
from fxpass.torch_internals import retrace
from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.features import holds

LAYOUTS = {
    "rows first": (0, 2, 3),
    "rows second": (2, 0, 3),
    "rows third": (2, 2, 0, 3),
    "rows last": (2, 3, 0),
    "rows alone": (0,),
}
"""The sizes of a cache, with 0 for its rows."""

READS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda rows, dim: rows.sum(dim),
    "amax": lambda rows, dim: rows.amax(dim),
    "last": lambda rows, dim: rows.select(dim, -1) * 2,
    "expanded": lambda rows, dim: rows.unsqueeze(0).expand(3, *rows.shape).mean(dim + 1),
    "var": lambda rows, dim: rows.var(dim, correction=0),
    "joined": lambda rows, dim: torch.cat([rows.unsqueeze(0), rows.unsqueeze(0)]).amin(dim + 1),
}

ORIGINS: dict[str, Callable[[Any, int], Any]] = {
    "argument": lambda at, p: p,
    "element": lambda at, p: int(at[0]),
    "bound": lambda at, p: at[0].clone(),
}


def step(k: Tensor, x: Tensor, at: Tensor, p: int, dim: int, origin: str, read: str) -> Tensor:
    start = ORIGINS[origin](at, p)
    end = start + x.shape[dim]
    before = (slice(None),) * dim
    k[(*before, slice(start, end))] = x
    at += x.shape[dim]
    return READS[read](k[(*before, slice(None, end))], dim)


def graphs(chunks: tuple[int, ...], layout: str, origin: str, read: str, **how: Any) -> int:
    """How many graphs and breaks it takes to fill a cache with ``chunks``; each call is compared with eager."""
    shape, dim = LAYOUTS[layout], LAYOUTS[layout].index(0)
    torch._dynamo.reset()
    fxpass.reset()
    counters.clear()
    compiled = torch.compile(step, **how)
    ours, theirs = (torch.full([n or sum(chunks) for n in shape], float("nan")) for _ in range(2))
    at, i = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for n in chunks:
        x, p = torch.rand([size or n for size in shape]), int(i[0])
        wanted = step(theirs, x, i, p, dim, origin, read)
        torch.testing.assert_close(compiled(ours, x, at, p, dim, origin, read), wanted)
        torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=0, atol=0)
    return counters["stats"]["unique_graphs"] + sum(counters["graph_break"].values())


KVFIX: dict[str, Any] = {"backend": "kvfix", "options": {"compiler": "eager"}}
ROWS = [f"{layout}: {read}" for layout in LAYOUTS for read in READS]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("rows", ROWS[::2])
@torch.no_grad()
def test_the_step_that_fills_a_cache(rows: str, origin: str) -> None:
    layout, read = rows.split(": ")
    assert graphs((4, 1, 1, 1, 1), layout, origin, read, **KVFIX) == 2


@pytest.mark.parametrize("chunks", [(3, 1, 1, 1), (2, 2, 2), (1, 1, 1, 1, 1), (2, 3, 3), (1, 2, 2, 1)])
@torch.no_grad()
def test_no_more_graphs_than_stock(chunks: tuple[int, ...]) -> None:
    assert graphs(chunks, "rows second", "argument", "sum", **KVFIX) <= graphs(
        chunks, "rows second", "argument", "sum", backend="eager"
    )


def test_other_tracing_notes_what_it_did() -> None:
    def traced(trace: Callable[..., Any]) -> Any:
        (node,) = (n for n in trace(lambda x: x + 1, (torch.rand(2, 3),)).graph.nodes if n.op == "call_function")
        return node.meta["tensor_meta"].memory_format

    importlib.import_module("fxpass.backend")  # installs the hooks
    assert holds(Feature.RETRACE)
    stock = torch.fx.experimental.proxy_tensor.make_fx
    assert traced(lambda fn, args: stock(fn)(*args)) is torch.contiguous_format
    assert traced(retrace.retrace) is None
