"""The edits by which a buffer takes the place of an input that grows, and of the joins that make it longer.

    past = placeholder [B, H, s, D]               buffer = placeholder [B, H, C, D]
    k = cat([past, new], 2)               ->      copy_(buffer[:, :, s:s + n], new)
                                                  k = buffer[:, :, :s + n]
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.analysis.growth import Growing
from fxpass.graph.inputs import note_buffer, note_static
from fxpass.graph.insertion import call, size_argument, stand_for, take_line
from fxpass.graph.numbers import equal

aten = torch.ops.aten


def placeholder(graph: fx.Graph, name: str, value: torch.Tensor) -> fx.Node:
    """A new last input of ``graph``, which stays where it is."""
    with graph.inserting_after(graph.find_nodes(op="placeholder")[-1]):
        made = graph.placeholder(name)
    made.meta["val"] = value
    note_static(made)
    return made


def buffer_for(graph: fx.Graph, one: Growing, capacity: torch.SymInt, name: str) -> fx.Node:
    """A buffer of that ``capacity`` for the input that grows, which the user calls ``name``: a new last input of ``graph``."""
    like = one.node.meta["val"]
    shape = [capacity if d == one.dim else size for d, size in enumerate(like.shape)]
    made = placeholder(graph, f"{one.node.name}_buffer", torch.empty(shape, dtype=like.dtype, device=like.device))
    note_buffer(made, name)
    return made


def length_node(graph: fx.Graph, one: Growing, known: Sequence[tuple[Any, fx.Node, Any]]) -> fx.Node:
    """The node of the length of what grows, before all ops: the sum of a length and of the number of rows that are joined
    there, an input and a dim, if these are ``known`` to end where it does."""
    for end, length, rows in known:
        if equal(one.size, end):
            with graph.inserting_after(length):
                added = call(graph, aten.sym_size.int, *rows)
            with graph.inserting_after(added):
                return call(graph, operator.add, length, added)
    with graph.inserting_before(next(n for n in graph.nodes if n.op != "placeholder")):
        return call(graph, aten.sym_size.int, one.node, one.dim)


def use_buffer(graph: fx.Graph, one: Growing, buffer: fx.Node, length: fx.Node) -> None:
    """Let ``buffer`` stand for the input that grows, of that ``length``, and for the joins.

    A read of the buffer keeps the fake value of what it replaces, which has memory of its own. No row that is read is written
    between such a read and its last use: a join writes behind what was there.
    """
    past, dim, end = one.node, one.dim, length
    with graph.inserting_after(length):
        whole = call(graph, aten.slice.Tensor, buffer, dim, 0, length, like=past.meta["val"])
    for join in one.joins:
        end = _write(graph, join, buffer, dim, end)
    kept = (length, *one.joins[:1])
    past.replace_all_uses_with(whole, delete_user_cb=lambda user: user.op != "output" and user not in kept)
    for node in [n for n in whole.users if n.target is aten.sym_size.int and n.args[1] == dim]:
        node.replace_all_uses_with(length)
        graph.erase_node(node)
    if whole.users:
        take_line(whole, next(iter(whole.users)))
    else:
        graph.erase_node(whole)


def _write(graph: fx.Graph, join: fx.Node, buffer: fx.Node, dim: int, start: fx.Node) -> fx.Node:
    """Write to ``buffer`` what ``join`` puts behind its first part, which ends at ``start``; gives the node of the new end."""
    with graph.inserting_before(join):
        parts = list(join.args[0])[1:]  # type: ignore[arg-type]
        new = parts[0]
        if len(parts) > 1:
            new = call(graph, aten.cat.default, parts, dim)
            take_line(new, join)
        end = call(graph, operator.add, start, size_argument(functools.partial(call, graph), new, dim))
        place = call(graph, aten.slice.Tensor, buffer, dim, start, end)
        write = call(graph, aten.copy_.default, place, new)
        joined = call(graph, aten.slice.Tensor, buffer, dim, 0, end, like=join.meta["val"])
    for node in (joined, end, place, write):
        take_line(node, join)
    stand_for(joined, join)
    join.replace_all_uses_with(joined, delete_user_cb=lambda user: user.op != "output")
    return end
