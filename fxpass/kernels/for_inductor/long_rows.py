"""Sums and running sums of few long rows are cut into chunks, so that more than one processor of a GPU computes each of them.

    y = cumsum(x, -1)          x: [7, 8192]
        ->
    local = cumsum(x.view(7, 8, 1024), -1)                                  56 short rows
    sums = local[..., 1023]                                                 what the chunks hold: 7 rows of 8
    before = sum(where(arange(8) < arange(8)[:, None], sums[:, None], 0), -1)
    y = (local + before[..., None]).view(7, 8192)

    y = sum(x, [-1])           ->        y = sum(sum(x.view(7, 8, 1024), [-1]), [-1])

Inductor gives each row, and what is computed of it next, to one program. It adds up to `MAX_PARTS` numbers where their sum is
used, in no kernel of their own: what the chunks hold is so many. Zeros fill up a row to whole chunks.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import torch
from torch import fx

from fxpass.graph.insertion import arithmetic, call, size_argument
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import hint
from fxpass.kernels.launches import limits

aten = torch.ops.aten

CHUNK = 256
"""The least size of a chunk."""
LEAST_CHUNKS = 8
"""Shorter rows are left to one program each."""
MOST_CHUNKS = 8
"""A row that is longer gets longer chunks, and not more."""
MOST_ROWS = 32
"""More rows than this keep the processors busy as they are."""
_DTYPES = (torch.float32, torch.float64, torch.int64)
"""Dtypes that store a sum with all the digits that it is computed with."""


def cut_long_rows(graph: fx.Graph) -> None:
    """Cut the sums and running sums along the last dim in ``graph`` (propagated) that are long, and few."""
    for target, cut in ((aten.cumsum.default, _running_sum), (aten.sum.dim_IntList, _sum)):
        for node in graph.find_nodes(op="call_function", target=target):
            if _is_long(node.meta["val"], node.args[0].meta["val"], node.args[1]):
                with graph.inserting_before(node), faking(mode_of([node.meta["val"]])):
                    new = cut(graph, node)
                new.meta = {**node.meta, **new.meta}
                node.replace_all_uses_with(new)
                graph.erase_node(node)


def _is_long(result: torch.Tensor, of: torch.Tensor, dims: Any) -> bool:
    if result.device.type not in limits.DEVICES or result.dtype not in _DTYPES or not of.dim():
        return False
    if dims not in (-1, [-1], of.dim() - 1, [of.dim() - 1]):
        return False
    *rows, length = (hint(size) for size in of.shape)
    return math.prod(rows) <= MOST_ROWS and length >= LEAST_CHUNKS * CHUNK


def _running_sum(graph: fx.Graph, node: fx.Node) -> fx.Node:
    x, sizes, chunk, missing = _chunks(graph, node)
    local = call(graph, aten.cumsum.default, x, -1)
    sums = call(graph, aten.select.int, local, -1, chunk - 1)
    before = call(graph, aten.unsqueeze.default, _sums_before(graph, sums), -1)
    whole = arithmetic(functools.partial(call, graph), operator.mul, sizes[-1], chunk)
    total = call(graph, aten.view.default, call(graph, aten.add.Tensor, local, before), [*sizes[:-1], whole])
    if missing == 0:
        return total
    end = arithmetic(functools.partial(call, graph), operator.sub, whole, missing)
    return call(graph, aten.contiguous.default, call(graph, aten.slice.Tensor, total, -1, 0, end))


def _sums_before(graph: fx.Graph, sums: fx.Node) -> fx.Node:
    """For each element of ``sums``, the sum of those before it in its row, written out as a sum of all that are before it."""
    value, made = sums.meta["val"], functools.partial(call, graph)
    place = made(aten.arange.default, size_argument(made, sums, -1), device=value.device)
    is_before = made(aten.lt.Tensor, place, made(aten.unsqueeze.default, place, -1))
    zero = made(aten.scalar_tensor.default, 0, dtype=value.dtype, device=value.device)
    return made(aten.sum.dim_IntList, made(aten.where.self, is_before, made(aten.unsqueeze.default, sums, -2), zero), [-1])


def _sum(graph: fx.Graph, node: fx.Node) -> fx.Node:
    x, *_ = _chunks(graph, node)
    keeps = node.args[2:3] or (node.kwargs.get("keepdim", False),)
    return call(graph, aten.sum.dim_IntList, call(graph, aten.sum.dim_IntList, x, [-1]), [-1], *keeps)


def _chunks(graph: fx.Graph, node: fx.Node) -> tuple[fx.Node, list[Any], int, Any]:
    """The rows that ``node`` sums up, in chunks and in its dtype; the sizes before that of a chunk; that size; the number of
    zeros added."""
    x: Any = node.args[0]
    if x.meta["val"].dtype != node.meta["val"].dtype:
        x = call(graph, aten.to.dtype, x, node.meta["val"].dtype)
    made = functools.partial(call, graph)
    *rows, length = (size_argument(made, x, dim) for dim in range(x.meta["val"].dim()))
    chunk = max(CHUNK, 2 ** math.ceil(math.log2(hint(x.meta["val"].shape[-1]) / MOST_CHUNKS)))
    chunks = arithmetic(made, operator.floordiv, arithmetic(made, operator.add, length, chunk - 1), chunk)
    missing = arithmetic(made, operator.sub, arithmetic(made, operator.mul, chunks, chunk), length)
    if missing != 0:
        x = call(graph, aten.constant_pad_nd.default, x, [0, missing])
    return call(graph, aten.reshape.default, x, [*rows, chunks, chunk]), [*rows, chunks], chunk, missing

