"""Index tensors have fixed sizes: one whose size Dynamo has made symbolic gets the one that it has now, under a guard.

    lens: i64[s0]         int(lens[0])        stock: a graph break
                                              kvfix: guard s0 == 3, lens: i64[3]

Another number of rows is then another graph. So it is for vectors, and a few sizes: what comes in more of them is data.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from fxpass.index_tensors.table import MAX_ELEMENTS, Table

from . import dynamism

MAX_SIZES = 3
"""For as many sizes of one index tensor a graph is made."""


def fix_sizes(tx: Any, node: fx.Node) -> None:
    """Fix the sizes of the graph inputs that the integers in ``node`` are made of, where they are small enough."""
    fixed = [_fix(tx, source) for source in _origins(node)]
    if any(fixed):
        Table.of(tx.output.graph).start_again()


def _fix(tx: Any, placeholder: fx.Node) -> bool:
    argument, value = placeholder.meta.get("grapharg"), placeholder.meta["example_value"]
    moving = [s for s in value.shape if isinstance(s, torch.SymInt) and s.node.maybe_as_int() is None]
    if not moving or argument is None:
        return False
    sizes = tuple(s if isinstance(s, int) else s.node.hint for s in value.shape)
    if len(sizes) > 2 or sum(s != 1 for s in sizes) > 1:  # a mask of data, which is as long as the data
        return False
    if None in sizes or not 0 < math.prod(sizes) <= MAX_ELEMENTS:
        return False
    seen = dynamism.see_sizes(tx.output.root_tx.f_code, argument.source.name, sizes)
    if len(seen) > MAX_SIZES:
        return False
    for size in moving:
        int(size)  # guards
    return True


def _origins(node: fx.Node) -> list[fx.Node]:
    """The integer tensors among the graph's inputs that ``node`` is computed from, by integers and truths alone."""
    found, waiting = dict.fromkeys([node]), [node]
    while waiting:
        for operand in waiting.pop().all_input_nodes:
            if operand not in found and _is_integer(operand):
                found[operand] = None
                waiting.append(operand)
    return [n for n in found if n.op == "placeholder" and _is_integer(n)]


def _is_integer(node: fx.Node) -> bool:
    value = node.meta.get("example_value")
    return isinstance(value, torch.Tensor) and value.dtype in (torch.int32, torch.int64, torch.bool)
