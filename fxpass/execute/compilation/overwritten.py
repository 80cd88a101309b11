"""Rows that a model writes by index go through a copy where the graph later writes the same memory in another way.

    index_copy_(buf, 0, i, k)                   copy = where(True, buf, buf)
                                  ->            index_copy_(copy, 0, i, k)
                                                copy_(buf, copy)
    copy_(buf, roll(buf, -1, 0))                copy_(buf, roll(buf, -1, 0))

Inductor makes both writes in place, and may fuse the second one with the read that stands before it: rows are then overwritten
that are still to be read (pytorch#198270).

This is for the writes that the model makes, in any graph that Inductor compiles. Slices that kvfix has made into writes by
index are masked by the rewrite (`rewriting.edits.overwrites`), which costs fewer passes over the buffer.
"""

from __future__ import annotations

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call, take_line

from .kept_copies import chosen, is_chosen

aten = torch.ops.aten
_INDEXED = {
    aten.index_add_.default,
    aten.index_copy_.default,
    aten.index_fill_.int_Scalar,
    aten.index_fill_.int_Tensor,
    aten.index_put_.default,
    aten.put_.default,
}


def overwritten(graph: fx.Graph) -> list[fx.Node]:
    """The writes by index in ``graph`` (propagated) that another kind of write to the same memory follows."""
    later: set[int | None] = set()
    found = []
    for node in reversed(graph.nodes):
        if node.target in _INDEXED:
            found += [node] if aliases.storage(node.args[0]) in later and is_chosen(node.args[0]) else []
        else:
            later |= {aliases.storage(w) for w in aliases.written(node)}
    return found[::-1]


def write_apart(gm: fx.GraphModule) -> bool:
    """Let the `overwritten` writes of ``gm`` go through copies. Gives whether there are any."""
    graph, writes = gm.graph, overwritten(gm.graph)
    for node in writes:
        buffer, *others = node.args
        with graph.inserting_before(node):
            copy = chosen(graph, buffer)
            made = [copy, call(graph, node.target, copy, *others, **node.kwargs, like=copy.meta["val"])]
            made.append(call(graph, aten.copy_.default, buffer, made[-1], like=buffer.meta["val"]))
        for each in made:
            take_line(each, node)
        node.replace_all_uses_with(made[-1])
        graph.erase_node(node)
    if writes:
        gm.recompile()
    return bool(writes)
