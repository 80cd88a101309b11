"""The parts of a graph that its code is made of, kept for later: nodes, the user's lines and fake values.

    linear = torch.nn.functional.linear(x, self.weight)        # the node, its line, f32[2, 8]; not the tensor ``self.weight``

What Dynamo holds of the call (the inputs that it has seen, and where they come from) is left behind as well.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import fx

_KEPT = ("stack_trace", "example_value", "val")


class Skeleton(NamedTuple):
    """A graph, the name of its module, and the skeletons of the modules that it calls."""

    name: str
    graph: fx.Graph
    children: dict[str, Skeleton]

    @classmethod
    def of(cls, gm: fx.GraphModule) -> Skeleton:
        """The skeleton of ``gm``, which may change afterwards."""
        graph = copy.deepcopy(gm.graph)
        for node in graph.nodes:
            node.meta = {key: node.meta[key] for key in _KEPT if key in node.meta}
        inner = {name: child for name, child in gm.named_children() if isinstance(child, fx.GraphModule)}
        return cls(type(gm).__name__, graph, {name: cls.of(child) for name, child in inner.items()})

    def module(self) -> fx.GraphModule:
        """A module with the graph, whose code is that of the first one. It has no tensors and cannot run."""
        targets = [str(n.target) for n in self.graph.nodes if n.op in ("get_attr", "call_module")]
        held: dict[str, Any] = {target: torch.nn.Identity() for target in targets}
        return fx.GraphModule(held | {name: child.module() for name, child in self.children.items()}, self.graph, self.name)
