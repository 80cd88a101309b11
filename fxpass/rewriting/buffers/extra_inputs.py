"""A graph with buffers also reads other inputs from memory of our own, and all of its numbers from one tensor.

    end = full([], n)                                   numbers = placeholder i64[2]
    at = full([], start)                    ->          end, at = select(numbers, 0, 0), select(numbers, 0, 1)

Then no op of the graph waits for a number, and no core is compiled for the value of a number that stays for some calls.
`execute.buffers.growth` fills this memory together with the buffers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of
from fxpass.rewriting.outside.around import Around
from fxpass.rewriting.outside.formulas import formula

from .buffer_edits import placeholder

aten = torch.ops.aten


def copy_inputs(gm: fx.GraphModule, around: Around, inputs: Sequence[fx.Node]) -> Around:
    """Let ``gm`` read ``inputs`` from memory at a fixed address, into which they are copied together with what grows."""
    places = [gm.graph.find_nodes(op="placeholder").index(node) for node in inputs]
    for node in inputs:
        copy = placeholder(gm.graph, f"{node.name}_copy", node.meta["val"])  # its views have this memory
        node.meta["val"] = node.meta["val"].clone()
        node.replace_all_uses_with(copy)
    gm.recompile()
    return dataclasses.replace(around, copies=places)


def give_numbers(gm: fx.GraphModule, around: Around) -> Around:
    """Let the numbers that ``gm`` (rewritten, propagated) puts into tensors come in one tensor, a new last input."""
    graph, inputs = gm.graph, gm.graph.find_nodes(op="placeholder")
    given, device = inputs[: len(inputs) - around.inputs], inputs[-1].meta["val"].device
    found: dict[Any, list[fx.Node]] = {}
    for node in graph.find_nodes(op="call_function", target=aten.full.default):
        value = node.meta["val"]
        if not value.dim() and isinstance(node.args[1], fx.Node) and (value.dtype, value.device) == (torch.int64, device):
            with contextlib.suppress(ValueError):
                found.setdefault(formula(node.args[1], given), []).append(node)
    if not found:
        return around
    with faking(mode_of([n.meta["val"] for n in inputs])):
        numbers = placeholder(graph, "numbers", torch.empty([len(found)], dtype=torch.int64, device=device))
        with graph.inserting_before(numbers.next):
            for i, nodes in enumerate(found.values()):
                made = call(graph, aten.select.int, numbers, 0, i)
                for node in nodes:
                    node.replace_all_uses_with(made)
    aliases.remove_dead(graph)
    gm.recompile()
    return dataclasses.replace(around, numbers=tuple(found))
