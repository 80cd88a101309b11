"""A size that is a symbol is a number among the inputs of a graph, and of each piece of it that takes something of such a size.

    keys: [2, 8, C, 64], C                      head(..., C), layer(x, keys, C), ...
    valid = arange(keys.size(2)) < end   ->     valid = arange(C) < end

So a piece is compiled once for all capacities of what grows, and never asks one of its inputs for a size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from fxpass.graph.extract import operands
from fxpass.graph.numbers import equal, symbols

aten = torch.ops.aten


def read_from_inputs(graph: fx.Graph) -> None:
    """Let the numbers among the inputs of ``graph`` (propagated) stand for the sizes that they are."""
    for number in _numbers(graph):
        for node in graph.find_nodes(op="call_function", target=aten.sym_size.int):
            if equal(node, number):
                node.replace_all_uses_with(number)
                graph.erase_node(node)


def operands_and_sizes(nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """The operands of ``nodes``, and the numbers that are symbols in their sizes."""
    taken = operands(nodes)
    of_sizes = {symbol for n in taken for symbol in symbols(n.meta.get("val"))}
    return list(dict.fromkeys([*taken, *(n for n in _numbers(nodes[0].graph) if symbols(n.meta["val"]) & of_sizes)]))


def _numbers(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.find_nodes(op="placeholder") if isinstance(n.meta["val"], torch.SymInt)]
