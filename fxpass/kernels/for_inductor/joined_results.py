"""What a recording returns as one tensor (`execute.recording.packing`) is written part by part.

    return cat([df.reshape(-1), loc.reshape(-1)])     ->     return kvfix.join([df.reshape(-1), loc.reshape(-1)])
"""

from __future__ import annotations

import torch
from torch import fx

from fxpass.torch_internals.inductor.part_by_part import lower_joins

aten = torch.ops.aten


def join_results(graph: fx.Graph) -> None:
    """Let each result of ``graph`` (propagated) that is joined of tensors of one dim be written part by part."""
    for node in graph.find_nodes(op="call_function", target=aten.cat.default):
        if set(node.users) == {graph.output_node()} and _is_flat(node):
            from fxpass.kernels.writes.join_parts import join_parts  # noqa: F401  (registers the op)

            join = torch.ops.kvfix.join.default
            if lower_joins(join):
                node.target, node.args, node.kwargs = join, (node.args[0],), {}


def _is_flat(node: fx.Node) -> bool:
    parts = [i.meta["val"] for i in node.all_input_nodes]
    return all(p.dim() == 1 and p.dtype == node.meta["val"].dtype for p in parts)
