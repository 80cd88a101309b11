"""Static addresses: inputs that a CUDA graph reads and writes where they are.

Parameters and buffers of modules have static addresses, which Dynamo guards. So do inputs that the graph writes to: a cache
must be written itself, and not a copy. All other inputs are copied into the recording's own memory.
"""

from __future__ import annotations

from torch import fx

from fxpass.graph import aliases
from fxpass.graph.inputs import belongs_to_module
from fxpass.graph.values import is_tensor


def static_addresses(gm: fx.GraphModule) -> set[fx.Node]:
    """The placeholders of ``gm`` (in normal form) with static addresses. A number that a module holds has none."""
    written = aliases.written_inputs(gm.graph)
    tensors = (n for n in gm.graph.find_nodes(op="placeholder") if is_tensor(n))
    return {n for n in tensors if n in written or belongs_to_module(n)}
