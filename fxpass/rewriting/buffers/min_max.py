"""A minimum or maximum of two numbers, one of which moves, becomes the number that it equals now. A guard keeps it so.

    rows = min(6, s + 1)                               rows = s + 1      while s + 1 <= 6
    kept = cat([past, new], 2)[:, :, -rows:]     ->    kept = cat([past, new], 2)[:, :, -rows:]

So a window that grows fills in one graph, and is full in another. Where the model says ``[:, :, -6:]``, Dynamo makes that guard
itself. Where nothing has grown, the graph is planned again without.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import fx

from fxpass.graph.numbers import guarded, hint, number, symbols
from fxpass.graph.propagate import op_records, propagate

_ORDERS = {torch.sym_min: 1, torch.sym_max: -1}


def as_one_of_two(gm: fx.GraphModule, moving: Set[Any]) -> bool:
    """Let each `min` and `max` in ``gm`` (in normal form) of numbers that are ``moving`` be one of its operands.

    Gives whether there was any.
    """
    before = op_records(gm)
    chosen = [(node, one) for node in gm.graph.nodes if (one := _chosen(node, moving)) is not None]
    for node, one in chosen:
        node.replace_all_uses_with(one)
        gm.graph.erase_node(node)
    if chosen:
        gm.recompile()
        propagate(gm, [n.meta["val"] for n in gm.graph.find_nodes(op="placeholder")], before)
    return bool(chosen)


def _chosen(node: fx.Node, moving: Set[Any]) -> Any:
    """The operand that ``node`` equals; None where ``node`` is no `min` or `max` of two numbers, or none of them moves."""
    if node.target not in _ORDERS or len(node.args) != 2 or not symbols(node.meta["val"]) & moving:
        return None
    first, second = sorted(node.args, key=lambda arg: _ORDERS[node.target] * hint(number(arg)))  # type: ignore
    least, most = (first, second) if _ORDERS[node.target] > 0 else (second, first)  # type: ignore[index]
    return first if guarded(number(least) <= number(most)) else None
