"""Floats that move become 0-d tensors where an op takes them together with a tensor.

    f = item(factor)                      f = item(factor)
    y = mul(x, f)                   ->    f_t = full([], f, dtype=float64)
                                          y = mul(x, f_t)

Dynamo hands in a float that has moved as a tensor, and the graph reads a number from it. An op that takes the number would be
left outside of the static core, with everything that depends on it. With a tensor in its place, only the `full` is outside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass.analysis.arithmetic import is_float
from fxpass.graph import aliases
from fxpass.graph.insertion import call, take_line
from fxpass.graph.schemas import arguments_by_name
from fxpass.graph.values import is_tensor

from .scalars import ACCEPT_TENSORS, TENSOR_FORM

aten = torch.ops.aten
_WIDE = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
"""Beside a tensor of 16 bits, these compute with a number in 32 bits, and with a 0-d tensor in 16."""


def floats_as_tensors(graph: fx.Graph) -> None:
    """Let ops of ``graph`` that take a moving float take a tensor in its place. Ops that cannot are left as they are."""
    made: dict[tuple[fx.Node, torch.device], fx.Node] = {}
    for node in graph.find_nodes(op="call_function", target=aten.clamp.default):
        _in_two(graph, node)
    for node in list(graph.nodes):
        floats = [a for a in node.args if isinstance(a, fx.Node) and is_float(a)]
        target = aten.sub.Tensor if node.target is aten.rsub.Scalar else TENSOR_FORM.get(node.target, node.target)
        tensors = [a.meta["val"] for a in node.args if is_tensor(a)]
        if not floats or not tensors or target not in ACCEPT_TENSORS or len(node.args) > 2 and target in _WIDE:
            continue
        beside = next((t for t in tensors if t.dtype is not torch.bool), tensors[0])
        wide = beside.dtype.itemsize == 2 and beside.dtype.is_floating_point
        if wide and (target not in _WIDE or aliases.written(node)):
            continue
        args = [_twin(graph, a, beside, made) if a in floats else a for a in node.args]
        with graph.inserting_before(node):
            new = _called(graph, target, args[::-1] if node.target is aten.rsub.Scalar else args, node, wide)
        take_line(new, node)
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _in_two(graph: fx.Graph, clamp: fx.Node) -> None:
    """Make ``clamp_max(clamp_min(x, f), g)`` of ``clamp(x, f, g)``, if a bound is a moving float."""
    given = arguments_by_name(clamp)
    bounds = [(given.get("min"), aten.clamp_min.default), (given.get("max"), aten.clamp_max.default)]
    if not any(isinstance(bound, fx.Node) and is_float(bound) for bound, _ in bounds):
        return
    x = given["self"]
    with graph.inserting_before(clamp):
        for bound, target in bounds:
            if bound is not None:
                x = call(graph, target, x, bound, like=clamp.meta["val"])
                take_line(x, clamp)
    clamp.replace_all_uses_with(x)
    graph.erase_node(clamp)


def _called(graph: fx.Graph, target: Any, args: list[Any], node: fx.Node, wide: bool) -> fx.Node:
    if not wide:
        return call(graph, target, *args, like=node.meta["val"], **node.kwargs)
    widened = [call(graph, aten.to.dtype, a, torch.float32) for a in args]
    return call(graph, aten.to.dtype, call(graph, target, *widened, **node.kwargs), node.meta["val"].dtype)


def _twin(graph: fx.Graph, number: fx.Node, beside: torch.Tensor, made: dict[tuple[fx.Node, torch.device], fx.Node]) -> fx.Node:
    """``number`` as a 0-d tensor that promotes like a Python float does with the tensor ``beside``. Where that has dims and is
    of a floating dtype, a tensor of float64 does so."""
    key = number, beside.device
    with graph.inserting_after(number):
        if key not in made:
            like = beside.new_empty((), dtype=torch.float64)
            made[key] = call(graph, aten.full.default, [], number, like=like, dtype=like.dtype, device=like.device)
    if beside.dim() and beside.dtype.is_floating_point or beside.dtype.is_complex:
        return made[key]
    with graph.inserting_after(made[key]):
        return call(graph, aten.to.dtype, made[key], torch.result_type(beside, 1.0))
