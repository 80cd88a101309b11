"""Tensors that are attributes of a graph's module are inputs while the pass runs.

    cache = get_attr[cache]                 ->        cache = placeholder[cache]          (after the graph's own)

Modules from `torch.export` hold parameters and caches as attributes. `lift` makes them inputs, so that the analysis has one
kind of memory to deal with. `restore` makes them attributes of the rewritten module, which shares them with the original one.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.fakes import FakeTensor

from .normal_form import mode_of


def lift(gm: fx.GraphModule, inputs: Sequence[Any]) -> tuple[fx.GraphModule, list[Any], dict[str, str]]:
    """A copy of ``gm`` without tensor attributes, its fake inputs, and the name of the attribute for each new placeholder."""
    graph = fx.Graph()
    results = graph.graph_copy(gm.graph, {})
    graph.output(results)
    lifted: dict[str, fx.Node] = {}
    fakes = list(inputs)
    mode = mode_of(inputs)
    last = next((n for n in reversed(graph.nodes) if n.op == "placeholder"), None)
    for node in list(graph.nodes):
        if node.op != "get_attr" or not isinstance(value := attribute(gm, node.target), torch.Tensor):
            continue
        if node.target not in lifted:
            with graph.inserting_after(last) if last is not None else graph.inserting_before(node):
                last = lifted[node.target] = graph.placeholder(node.target.replace(".", "_"))
            own = node.meta.get("val")
            fake = own if isinstance(own, FakeTensor) else mode.from_tensor(value, static_shapes=True)
            lifted[node.target].meta = {**node.meta, "val": fake}
            fakes.append(fake)
        node.replace_all_uses_with(lifted[node.target])
        graph.erase_node(node)
    return fx.GraphModule(gm, graph), fakes, {node.name: target for target, node in lifted.items()}


def restore(new: fx.GraphModule, gm: fx.GraphModule, names: dict[str, str]) -> fx.GraphModule:
    """``new`` with the placeholders in ``names`` as attributes again. It takes inputs and gives outputs as ``gm`` does."""
    graph = new.graph
    for node in [n for n in graph.nodes if n.op == "placeholder" and n.name in names]:
        value = attribute(gm, names[node.name])
        if isinstance(value, torch.nn.Parameter):
            new.register_parameter(node.name, value)
        else:
            new.register_buffer(node.name, value)
        with graph.inserting_before(node):
            held = graph.get_attr(node.name)
        held.meta = node.meta
        node.replace_all_uses_with(held)
        graph.erase_node(node)
    graph.set_codegen(gm.graph._codegen)
    new.recompile()
    return new


def attribute(gm: fx.GraphModule, target: str) -> Any:
    """The attribute of ``gm`` that a `get_attr` of ``target`` reads."""
    return operator.attrgetter(target)(gm)
