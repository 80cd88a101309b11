"""Copies of inputs that Inductor would wrongly take out of a graph go through an operator that it leaves in.

    snapshot = clone(i)                             ->      snapshot = where(True, copy, copy), of copy = clone(i)
    add_(i, 1)                                              add_(i, 1)
    return clone(select(snapshot, 0))                       return clone(select(snapshot, 0))

Inductor takes out clones, and other ops whose result equals their operand. It leaves in a clone that keeps a result apart from
an input. But which tensors lie in one memory it takes from the graph as it came, before any clone was taken out. So of two
clones in a row it takes out both, and the result above would be ``i`` itself, after the addition.
"""

from __future__ import annotations

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.values import is_tensor
from fxpass.rewriting.nodes.bits import moved_as

aten = torch.ops.aten


def keep_copies(gm: fx.GraphModule) -> None:
    """Let Inductor keep the copies of inputs in ``gm`` (propagated). Those that are results it keeps anyway."""
    graph = gm.graph
    results = {storage for n in graph.output_node().all_input_nodes for storage in aliases.storages(n)}
    copies = [n for n in graph.find_nodes(op="call_function", target=aten.clone.default) if is_chosen(n)]
    taken_out = [n for n in copies if _is_of_input(n) and aliases.storage(n) not in results]
    for node in taken_out:
        with graph.inserting_before(node.next):
            kept = chosen(graph, node)
        node.replace_all_uses_with(kept, delete_user_cb=lambda user, kept=kept: user is not kept)
    if taken_out:
        gm.recompile()


def chosen(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """What holds what ``node`` holds, by an op that Inductor leaves in, at the insertion point of ``graph``."""
    value = node.meta["val"]
    true = call(graph, aten.full.default, [], True, dtype=torch.bool, device=value.device, like=value.new_empty(()))
    return call(graph, aten.where.self, true, node, node, like=value.clone())


def is_chosen(node: fx.Node) -> bool:
    """Whether `where` takes the dtype of ``node`` on every device."""
    return is_tensor(node) and moved_as(node.meta["val"].dtype) is node.meta["val"].dtype


def _is_of_input(copy: fx.Node) -> bool:
    return aliases.root(copy.args[0]).op == "placeholder"  # type: ignore[arg-type]
