"""An input that the caller has made as long as the valid rows of a buffer is padded to the size of that buffer.

    mask = placeholder [B, 1, n, s]                     mask = placeholder [B, 1, n, s]
                                              ->        padded = clone(constant_pad_nd(mask, [0, S])[..., :S])
    sdpa(q, k[:, :, :s], v[:, :, :s], mask)             sdpa(q, k[:, :, :s], v[:, :, :s], padded[..., :s])

A mask has this length where one function cuts it and another function, which is compiled by itself, uses it. Once it is padded,
it is a slice of a tensor that has the size of the buffer, and only the padding depends on the size that moves.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import torch
from torch import fx

from fxpass.analysis.arithmetic import call_of, inputs_of
from fxpass.analysis.extents import Extent
from fxpass.analysis.positions import Positions, is_scalar
from fxpass.graph import aliases
from fxpass.graph.inputs import note_given
from fxpass.graph.insertion import call, take_line
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import Derived, equal

aten = torch.ops.aten


def pad_inputs(
    graph: fx.Graph, positions: Positions, extents: Iterable[Extent], but: Container[str], before_edits: Callable[[], None]
) -> dict[fx.Node, str]:
    """Pad the inputs of ``graph`` that are as long as one of ``extents``, but those with the names ``but``; ``before_edits`` is
    called if there are any.

    Returns the slices that take the places of these inputs, with the inputs' names. Where one of them is refused, its input
    need not have been padded.
    """
    as_long = ((n, dim, e) for e in extents for n, dim in _as_long(graph, positions, e) if n.name not in but)
    found = {node: (dim, extent) for node, dim, extent in as_long}
    if not found:
        return {}
    before_edits()
    inputs = graph.find_nodes(op="placeholder")
    with faking(mode_of([n.meta["val"] for n in inputs])), graph.inserting_before(inputs[-1].next):
        return {_pad(graph, node, dim, extent): node.name for node, (dim, extent) in found.items()}


def _as_long(graph: fx.Graph, positions: Positions, extent: Extent) -> Iterator[tuple[fx.Node, int]]:
    """The inputs of ``graph`` that are read alone, with the one dim that is as long as ``extent``."""
    if not _is_known_at_the_start(extent.length) or not _is_known_at_the_start(extent.full):
        return
    written = {aliases.root(w) for node in graph.nodes for w in aliases.written(node)}
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or node in written or not node.users:
            continue
        moving = [d for d, size in enumerate(value.shape) if positions.move(size)]
        if len(moving) == 1 and equal(value.shape[moving[0]], extent.length):
            yield node, moving[0]


def _is_known_at_the_start(value: Any) -> bool:
    """Whether a number can be worked out from the inputs alone."""
    seen: set[Any] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value in seen or _is_given(value):
            continue
        if isinstance(value, fx.Node) and not is_scalar(value):
            return False
        seen.add(value)
        waiting += inputs_of(value)
    return True


def _pad(graph: fx.Graph, node: fx.Node, dim: int, extent: Extent) -> fx.Node:
    users, like = list(node.users), node.meta["val"]
    made: dict[Any, Any] = {}
    length, full = (_number(graph, value, made) for value in (extent.length, extent.full))
    longer = call(graph, aten.constant_pad_nd.default, node, [0, 0] * (like.dim() - 1 - dim) + [0, full])
    part = call(graph, aten.slice.Tensor, longer, dim, 0, full)
    padded = call(graph, aten.clone.default, part, memory_format=torch.contiguous_format)
    padded.meta["val"] = like.new_empty([extent.full_size if d == dim else s for d, s in enumerate(like.shape)])
    rows = call(graph, aten.slice.Tensor, padded, dim, 0, length, like=like)
    note_given(padded, node)  # what the report calls it by
    for made in (longer, padded, rows):
        take_line(made, users[0])
    for user in users:
        user.replace_input_with(node, rows)
    return rows


def _number(graph: fx.Graph, value: Any, made: dict[Any, Any]) -> Any:
    """``value`` as an argument of ``graph``, worked out where it is asked for; ``made`` holds what has been worked out."""
    if _is_given(value):
        return value
    if value not in made:
        fn, args = call_of(value)
        made[value] = call(graph, fn, *(_number(graph, arg, made) for arg in args))
    return made[value]


def _is_given(value: Any) -> bool:
    """Whether ``value`` is a constant or an input of the graph."""
    return value.op == "placeholder" if isinstance(value, fx.Node) else not isinstance(value, Derived)
