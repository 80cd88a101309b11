"""Static addresses: inputs whose memory stays put from call to call, so that a CUDA graph may hold on to it.

Parameters and buffers of modules are (Dynamo guards on them), and so is what the graph writes to: a cache or an index
tensor must be written where it is, not in a copy. Every other input is copied into the recording's own memory.
"""

from __future__ import annotations

from torch import fx

from fxpass.graph import aliases


def static_addresses(gm: fx.GraphModule) -> set[fx.Node]:
    """The placeholders of ``gm`` (in normal form) with static addresses."""
    written = written_inputs(gm)
    return {n for n in gm.graph.nodes if n.op == "placeholder" and (n in written or belongs_to_module(n))}


def written_inputs(gm: fx.GraphModule) -> set[fx.Node]:
    """The placeholders of ``gm`` that it writes to."""
    roots = {aliases.root(w) for n in gm.graph.nodes for w in aliases.written(n)}
    return {n for n in roots if n.op == "placeholder"}


def belongs_to_module(placeholder: fx.Node) -> bool:
    """Whether Dynamo took ``placeholder`` from a module's parameters or buffers, or it was marked static."""
    before = placeholder.meta.get("placeholder", placeholder)
    if "_dynamo_static_input_type" in before.meta.get("tensor_dict", {}):
        return True
    argument = before.meta.get("grapharg")
    source = None if argument is None else argument.source
    return source is not None and source.guard_source.is_unspecialized_nn_module()
