"""A slice with a step is split into two slices: one without a step, and one that takes every n-th row of it.

    k[:, :end:2]            ->          k[:, :end][:, ::2]

The first is then a slice at a position like any other, and the second takes rows of a slice.
"""

from __future__ import annotations

import torch
from torch import fx

from .bounds import TO_THE_END, slice_arguments

aten = torch.ops.aten


def take_steps_apart(graph: fx.Graph) -> None:
    """Split each slice of ``graph`` that has a step of a fixed size and a symbolic bound."""
    for node in graph.find_nodes(op="call_function", target=aten.slice.Tensor):
        x, dim, start, end, step = slice_arguments(node)
        if step == 1 or not isinstance(step, int) or not any(isinstance(bound, fx.Node) for bound in (start, end)):
            continue
        with graph.inserting_before(node):
            whole = graph.call_function(aten.slice.Tensor, (x, dim, start, end))
        values = [bound.meta["val"] if isinstance(bound, fx.Node) else bound for bound in (start, end)]
        whole.meta = {**node.meta, "val": aten.slice.Tensor(x.meta["val"], dim, *values)}
        node.args = (whole, dim, 0, TO_THE_END, step)
