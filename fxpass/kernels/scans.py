"""Running sums of few long rows are cut into chunks, so that more than one processor of a GPU computes each of them.

    y = cumsum(x, -1)          x: [7, 8192]
        ->
    local = cumsum(x.view(7, 32, 256), -1)                             224 short rows
    before = constant_pad_nd(cumsum(local[..., 255], -1), [1, -1])     what the chunks before hold: 7 rows of 32
    y = (local + before[..., None]).view(7, 8192)

Inductor gives each row to one program. What it computes next of ``y``, it computes with the last sum. A row is filled up with
zeros to whole chunks.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx

from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import hint

from . import limits

aten = torch.ops.aten

CHUNK = 256
LEAST_CHUNKS = 8
"""Shorter rows are left to one program each."""
MOST_ROWS = 32
"""More rows than this keep the processors busy as they are."""
_DTYPES = (torch.float32, torch.float64, torch.int64)
"""Dtypes whose sums are not rounded to fewer digits than they are computed in."""


def cut_scans(graph: fx.Graph) -> None:
    """Cut the running sums along the last dim in ``graph`` (propagated) that are long, and few."""
    for node in graph.find_nodes(op="call_function", target=aten.cumsum.default):
        if _is_long(node):
            with graph.inserting_before(node), faking(mode_of([node.meta["val"]])):
                new = _in_chunks(graph, node)
            new.meta = {**node.meta, **new.meta}
            node.replace_all_uses_with(new)
            graph.erase_node(node)


def _is_long(node: fx.Node) -> bool:
    value = node.meta["val"]
    if value.device.type not in limits.DEVICES or value.dtype not in _DTYPES:
        return False
    if not value.dim() or node.args[1] not in (-1, value.dim() - 1):
        return False
    *rows, length = (hint(size) for size in value.shape)
    return math.prod(rows) <= MOST_ROWS and length >= LEAST_CHUNKS * CHUNK


def _in_chunks(graph: fx.Graph, node: fx.Node) -> fx.Node:
    x, value = node.args[0], node.meta["val"]
    if x.meta["val"].dtype != value.dtype:  # type: ignore[union-attr]
        x = call(graph, aten.to.dtype, x, value.dtype)
    *rows, length = (_size(graph, x, dim) for dim in range(value.dim()))
    chunks = _of(graph, operator.floordiv, _of(graph, operator.add, length, CHUNK - 1), CHUNK)
    whole = _of(graph, operator.mul, chunks, CHUNK)
    if (missing := _of(graph, operator.sub, whole, length)) != 0:
        x = call(graph, aten.constant_pad_nd.default, x, [0, missing])
    local = call(graph, aten.cumsum.default, call(graph, aten.reshape.default, x, [*rows, chunks, CHUNK]), -1)
    sums = call(graph, aten.cumsum.default, call(graph, aten.select.int, local, -1, CHUNK - 1), -1)
    before = call(graph, aten.unsqueeze.default, call(graph, aten.constant_pad_nd.default, sums, [1, -1]), -1)
    total = call(graph, aten.view.default, call(graph, aten.add.Tensor, local, before), [*rows, whole])
    return total if missing == 0 else call(graph, aten.contiguous.default, call(graph, aten.slice.Tensor, total, -1, 0, length))


def _size(graph: fx.Graph, x: Any, dim: int) -> Any:
    size = x.meta["val"].shape[dim]
    return size if isinstance(size, int) else call(graph, aten.sym_size.int, x, dim)


def _of(graph: fx.Graph, fn: Any, *args: Any) -> Any:
    return call(graph, fn, *args) if any(isinstance(a, fx.Node) for a in args) else fn(*args)
