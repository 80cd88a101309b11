"""Linear layers on few rows become products that read their weights at full speed. Layers of the same rows become one launch.

    q = linear(x, wq); k = linear(x, wk)      1 row      ->      ps = kvfix.linears_few_rows(x, [wq, wk], [], 1, True)
                                                                 q = ps[0].select(0, 0); k = ps[1].select(0, 0)
    y = linear(x, w, b)                       7 rows     ->      p = kvfix.linear_few_rows(x, w, b, 3, True)
                                                                 y = p.sum(0)

    y = linear(x, w)        448 rows, 24 outputs      ->      p = kvfix.linear_few_rows(w, x, None, 6, False)
                                                                 y = p.sum(0).t().contiguous()

On a product with seven rows, whose only cost is to read the weights, cuBLAS reaches a fifth of the memory bandwidth. The new
products are opaque operators, which take the compiler hardly any time. The parts are summed by the compiler, within the
kernel that reads the sum.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of
from fxpass.kernels.launches.limits import FLOATS, MAX_LAYERS, MAX_OUTPUTS, MAX_ROWS, MAX_TURNED, addressed
from fxpass.kernels.launches.memory_writes import MemoryWrites

from .faster import is_faster
from .gates import use_gates

aten = torch.ops.aten

Parts = Callable[[int, Sequence[int], int, int, torch.device], int]
"""`tiles.best_parts`, which needs triton."""


def use_few_rows(graph: fx.Graph, writing: MemoryWrites) -> None:
    """Replace the linear layers on few rows in ``graph`` (propagated, on CUDA)."""
    layers = graph.find_nodes(op="call_function", target=aten.linear.default)
    narrow = [node for node in layers if few_outputs(node)]
    if not narrow and not any(map(few_rows, layers)):
        return
    from . import linear, tiles  # noqa: F401  (registers the ops; needs triton)

    use_gates(graph, writing, functools.partial(_whole, tiles.best_parts))
    layers = graph.find_nodes(op="call_function", target=aten.linear.default)
    for group in _groups([node for node in layers if few_rows(node)], writing, MAX_LAYERS):
        _replace(graph, group, writing, tiles.best_parts)
    for group in _groups(narrow, writing, MAX_TURNED):
        _turn(graph, group, tiles.best_parts)


def _groups(layers: Sequence[fx.Node], writing: MemoryWrites, most: int) -> list[list[fx.Node]]:
    """``layers`` in groups that may be one launch: at most ``most`` layers of the same rows, whose weights are inputs of the
    graph, with no write in between."""
    open_: dict[Any, list[fx.Node]] = {}
    found = []
    for node in layers:
        x, *parameters = (n for n in node.args if n is not None)
        group = open_.get((x, len(parameters)))
        if group is None or len(group) == most or not _may_join(node, group[0], writing):
            group = open_[x, len(parameters)] = []
            found.append(group)
        group.append(node)
    return found


def _may_join(node: fx.Node, first: fx.Node, writing: MemoryWrites) -> bool:
    """Whether ``node`` could as well be computed where ``first`` is."""
    x, *parameters = node.all_input_nodes
    given = all(p.op in ("placeholder", "get_attr") for p in parameters)
    return given and not any(writing.between(first, node, aliases.storage(n)) for n in (x, *parameters))


def _replace(graph: fx.Graph, group: Sequence[fx.Node], writing: MemoryWrites, parts_of: Parts) -> None:
    x, first = group[0].args[0], group[0]
    weights = [n.args[1] for n in group]
    biases = [n.args[2] for n in group if len(n.args) > 2 and n.args[2] is not None]
    rows, outputs = x.meta["val"], [w.meta["val"].shape[0] for w in weights]  # type: ignore[union-attr]
    k = rows.shape[-1]
    parts = parts_of(rows.numel() // k, outputs, k, rows.element_size(), rows.device)
    early = all(writing.stays(n) for n in (*weights, *biases))  # type: ignore[arg-type]

    call = _caller(graph, first)
    with graph.inserting_before(first), faking(mode_of([rows])):
        if len(group) == 1:
            op = torch.ops.kvfix.linear_few_rows.default
            results = [call(op, x, weights[0], biases[0] if biases else None, parts, early)]
        else:
            several = call(torch.ops.kvfix.linears_few_rows.default, x, weights, biases, parts, early)
            results = [call(operator.getitem, several, i) for i in range(len(group))]
        totals = [_added(call, result, parts, rows.dtype) for result in results]
    for node, total in zip(group, totals, strict=True):
        node.replace_all_uses_with(total)
        graph.erase_node(node)


def _whole(parts_of: Parts, layers: Sequence[fx.Node], outputs: int) -> bool:
    """Whether ``outputs`` of each of the ``layers``, on few rows, are sums that are not cut into parts."""
    rows = layers[0].args[0].meta["val"]  # type: ignore[union-attr]
    k = rows.shape[-1]
    few = all(map(few_rows, layers))
    return few and parts_of(rows.numel() // k, [outputs] * len(layers), k, rows.element_size(), rows.device) == 1


def _caller(graph: fx.Graph, like: fx.Node) -> Callable[..., fx.Node]:
    """A function that adds a call to ``graph``, with its value and with the metadata of ``like``."""

    def caller(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = call(graph, target, *args, **kwargs)
        node.meta = {**like.meta, **node.meta}
        return node

    return caller


def _turn(graph: fx.Graph, group: Sequence[fx.Node], parts_of: Parts) -> None:
    """Replace products of the same many rows and few outputs by the transpose of one of few rows and many outputs."""
    first = min(group)
    x, weights = first.args[0], [node.args[1] for node in group]
    rows, outputs = x.meta["val"], [w.meta["val"].shape[0] for w in weights]  # type: ignore[union-attr]
    k, call = rows.shape[-1], _caller(graph, first)
    many = rows.numel() // k
    parts = parts_of(sum(outputs), [many], k, rows.element_size(), rows.device)
    with graph.inserting_before(first), faking(mode_of([rows])):
        flat = call(aten.view.default, x, [many, k])
        weight = weights[0] if len(group) == 1 else call(aten.cat.default, weights)
        result = call(torch.ops.kvfix.linear_few_rows.default, weight, flat, None, parts, False)
        turned = call(aten.t.default, _added(call, result, parts, rows.dtype))
        totals, start = [], 0
        for node, count in zip(group, outputs, strict=True):
            own = call(aten.slice.Tensor, turned, 1, start, start + count)
            if len(node.args) > 2 and node.args[2] is not None:
                own = call(aten.add.Tensor, own, node.args[2])
            own = call(aten.clone.default, own, memory_format=torch.contiguous_format)
            totals.append(call(aten.view.default, own, [*rows.shape[:-1], count]))
            start += count
    for node, total in zip(group, totals, strict=True):
        node.replace_all_uses_with(total)
        graph.erase_node(node)


def _added(call: Callable[..., fx.Node], result: fx.Node, parts: int, dtype: torch.dtype) -> fx.Node:
    """The sum of the ``parts`` of ``result``, in ``dtype``."""
    if parts == 1:
        return call(aten.select.int, result, 0, 0)
    total = call(aten.sum.dim_IntList, result, [0])
    return total if dtype is torch.float32 else call(aten._to_copy.default, total, dtype=dtype)


def few_rows(node: fx.Node) -> bool:
    """Whether the ``aten.linear`` ``node`` is one that the kernel is written for, and faster at than cuBLAS."""
    x, weight = node.args[0].meta["val"], node.args[1].meta["val"]  # type: ignore[union-attr]
    if not _fits(x, weight) or few_outputs(node):
        return False
    return is_faster(x.numel() // x.shape[-1], weight)


def few_outputs(node: fx.Node) -> bool:
    """Whether the ``aten.linear`` ``node``, of float32, is faster as the transpose of a product on few rows."""
    x, weight = node.args[0].meta["val"], node.args[1].meta["val"]  # type: ignore[union-attr]
    if not _fits(x, weight) or x.dtype is not torch.float32 or not x.is_contiguous():
        return False
    return MAX_ROWS < x.numel() // x.shape[-1] <= 8192 and weight.shape[0] <= MAX_OUTPUTS


def _fits(x: torch.Tensor, weight: torch.Tensor) -> bool:
    if not all(isinstance(s, int) for s in (*x.shape, *weight.shape)):
        return False
    if x.dtype not in FLOATS or weight.dtype != x.dtype or weight.dim() != 2:
        return False
    return weight.is_contiguous() and x.numel() > 0 and weight.numel() > 0 and addressed(x, weight)
