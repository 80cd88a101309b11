"""Static addresses: inputs that a CUDA graph reads and writes where they are.

Parameters and buffers of modules have static addresses, which Dynamo guards. So do inputs that the graph writes to: a cache
must be written itself, and not a copy. All other inputs are copied into the recording's own memory.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.inputs import dynamo_source, is_noted_static


def static_addresses(gm: fx.GraphModule) -> set[fx.Node]:
    """The placeholders of ``gm`` (in normal form) with static addresses. A number that a module holds has none."""
    written = written_inputs(gm)
    tensors = (n for n in gm.graph.find_nodes(op="placeholder") if isinstance(n.meta.get("val"), torch.Tensor))
    return {n for n in tensors if n in written or belongs_to_module(n)}


def written_inputs(gm: fx.GraphModule) -> set[fx.Node]:
    """The placeholders of ``gm`` that it writes to."""
    return written_in(gm.graph)


def written_in(graph: fx.Graph) -> set[fx.Node]:
    """The placeholders of ``graph`` that it writes to."""
    roots = {aliases.root(w) for n in graph.nodes for w in aliases.written(n)}
    return {n for n in roots if n.op == "placeholder"}


def written_places(gm: fx.GraphModule, more: Collection[fx.Node] = ()) -> list[int]:
    """The places of the arguments that ``gm`` writes to, and of those for its placeholders in ``more``."""
    written = written_inputs(gm) | set(more)
    return [i for i, n in enumerate(gm.graph.find_nodes(op="placeholder")) if n in written]


def belongs_to_module(placeholder: fx.Node) -> bool:
    """Whether ``placeholder`` is a parameter, a buffer or a number of a module, or was marked static."""
    source = dynamo_source(placeholder)
    return is_noted_static(placeholder) or source is not None and source.guard_source.is_unspecialized_nn_module()
