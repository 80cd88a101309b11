"""An index tensor whose size Dynamo has made symbolic is fixed at its size of now, under a guard.

    lens: i64[s0]         int(lens[0])        stock: a graph break
                                              kvfix: guard s0 == 3, lens: i64[3]

Another number of rows then takes another graph. This is done for vectors, and for few sizes of each. A tensor that comes in
more sizes, or that the caller hands in anew for each call, is followed without a fixed size where possible (`expressions`). The
places at which an index tensor is read are fixed too, as long as they do not change from call to call:

    row = int(rows[layer])         s3, as another model keeps its layers elsewhere
    length = int(lens[row])        stock: a graph break
                                   kvfix: guard s3 == 1, lens[1]
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph.numbers import hint, symbols
from fxpass.index_tensors.small_tensors import MAX_ELEMENTS, int_if_fixed
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.frames.history import calls_of, history_of, may_fix, see_sizes
from fxpass.torch_internals.dynamo.guards.sources import user_text
from fxpass.torch_internals.dynamo.names import ChainedSource

MAX_SIZES = 3
"""An index tensor is fixed at no more sizes than this, and a place at no more values. A prefill and a step for each of these,
and two more for all others, are as many graphs as Dynamo makes of a frame."""
MAX_SIZES_IF_FOLLOWED = 2
"""An index tensor that can be followed without a fixed size is fixed at no more sizes than this."""
_SELECTING = (torch.select, "select", operator.getitem)


def fix_numbers(tx: Any, node: fx.Node, whole: Sequence[fx.Node] = ()) -> None:
    """Fix the sizes of the small graph inputs that ``node`` is computed from, and the places at which they are read.

    The graph inputs ``whole`` can be followed without fixed sizes.
    """
    integers = _followed(node)
    done = [_fix_sizes(tx, n, n in whole) for n in integers if n.op == "placeholder"]
    done += [_fix_place(tx, n) for n in integers if n.target in _SELECTING]
    if any(done):
        Table.of(tx.output.graph).start_again()


def has_symbolic_size(node: fx.Node) -> bool:
    """Whether a graph input that ``node`` is computed from has a symbol for a size."""
    inputs = [n.meta["example_value"] for n in _followed(node) if n.op == "placeholder"]
    return any(isinstance(int_if_fixed(size), torch.SymInt) for value in inputs for size in value.shape)


def _fix_place(tx: Any, selected: fx.Node) -> bool:
    """If ``selected`` is ``idx[s0]``, guard ``s0`` to be what it is now; gives whether that was done."""
    place = selected.args[-1]
    number = place.meta.get("example_value") if isinstance(place, fx.Node) else None
    if not isinstance(number, torch.SymInt) or number.node.maybe_as_int() is not None or number.node.hint is None:
        return False
    code, name = tx.output.root_tx.f_code, f"place {number.node.expr}"
    if _moves_with_steps(tx, number) or not may_fix(code, name, number.node.hint, MAX_SIZES):
        return False
    int(number)  # guards
    return True


def _moves_with_steps(tx: Any, number: torch.SymInt) -> bool:
    """Whether ``number`` is computed from one that moves with most calls, such as the page ``n // 16`` that row ``n`` is in."""
    calls, _ = calls_of(tx.output.root_tx.f_code)
    sources = tx.output.shape_env.var_to_sources
    return any(calls.mostly_moves(user_text(source)) for symbol in symbols(number) for source in sources.get(symbol, ()))


def _fix_sizes(tx: Any, placeholder: fx.Node, is_followed: bool) -> bool:
    argument, value = placeholder.meta.get("grapharg"), placeholder.meta["example_value"]
    sizes = tuple(map(hint, value.shape))
    if argument is None or len(sizes) > 2 or sum(s != 1 for s in sizes) > 1:  # a mask over data
        return False
    if None in sizes or not 0 < math.prod(sizes) <= MAX_ELEMENTS:
        return False
    if is_followed and _is_handed_in(tx, argument.source):
        return False
    seen = see_sizes(tx.output.root_tx.f_code, argument.source.name, sizes)
    moving = [s for s in value.shape if isinstance(s, torch.SymInt) and s.node.maybe_as_int() is None]
    if not moving or len(seen) > (MAX_SIZES_IF_FOLLOWED if is_followed else MAX_SIZES):
        return False
    for size in moving:
        int(size)  # guards
    return True


def _is_handed_in(tx: Any, source: Any) -> bool:
    """Whether the caller hands in the index tensor at ``source`` anew, such as the places of a prompt's rows: it is an argument
    of the frame, and no graph of the frame has written to it."""
    seen = history_of(tx.output.root_tx.f_code)
    return source.name in seen.sizes and source.name not in seen.written and not isinstance(source, ChainedSource)


def _followed(node: fx.Node) -> list[fx.Node]:
    """``node`` and the nodes that it is computed from, as far as these are tensors of integers or of bool."""
    found, waiting = dict.fromkeys([node]), [node]
    while waiting:
        for operand in waiting.pop().all_input_nodes:
            if operand not in found and _is_integer(operand):
                found[operand] = None
                waiting.append(operand)
    return [n for n in found if _is_integer(n)]


def _is_integer(node: fx.Node) -> bool:
    value = node.meta.get("example_value")
    return isinstance(value, torch.Tensor) and value.dtype in (torch.int32, torch.int64, torch.bool)
