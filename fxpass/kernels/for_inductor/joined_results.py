"""What a recording returns as one tensor (`execute.recording.packing`) is written part by part.

    return cat([df.reshape(-1), loc.reshape(-1)])     ->     return kvfix.join([df.reshape(-1), loc.reshape(-1)])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx
from torch.library import custom_op

from fxpass.torch_internals.inductor.part_by_part import lower_joins

aten = torch.ops.aten


@custom_op("kvfix::join", mutates_args=())
def join_parts(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """``torch.cat(parts)`` for parts of one dim and one dtype."""
    return torch.cat(list(parts))


@join_parts.register_fake
def _(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(parts))


def join_results(graph: fx.Graph) -> None:
    """Let each result of ``graph`` (propagated) that is joined of tensors of one dim be written part by part."""
    found = [n for n in graph.find_nodes(op="call_function", target=aten.cat.default) if set(n.users) == {graph.output_node()}]
    if not found or not lower_joins(torch.ops.kvfix.join.default):
        return
    for node in found:
        if all(p.meta["val"].dim() == 1 and p.meta["val"].dtype == node.meta["val"].dtype for p in node.all_input_nodes):
            node.target, node.args, node.kwargs = torch.ops.kvfix.join.default, (node.args[0],), {}
