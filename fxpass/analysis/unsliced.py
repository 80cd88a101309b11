"""Parts of buffers that an op other than a slice takes at a position. They stay as they are, and the report says why.

    buf.split([end, S - end], 1)    buf.as_strided((2, end), (S, 1))    buf[:, torch.arange(end)]
    buf[:, : int(t)]                                                                     where ``t`` is a float
    embedding_bag(torch.arange(end), buf)    a_users_operator(buf, torch.arange(end))    any operator that is told places
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass import reasons
from fxpass.graph import aliases
from fxpass.graph.numbers import hint, symbols
from fxpass.graph.schemas import is_operator
from fxpass.graph.values import is_tensor, tensors_of

from .extents import Flow
from .sites import SiteFinder

aten = torch.ops.aten

_PICKS = {aten.index.Tensor, aten.index_select.default, aten.gather.default, aten.take.default,
          aten.take_along_dim.default, aten.embedding.default, aten.narrow_copy.default,
          aten.pad.default, aten.constant_pad_nd.default}  # fmt: skip
"""What takes elements of its first operand and shares no memory with it."""


class Unsliced(NamedTuple):
    """A ``node`` that takes a part of ``base``, those of its ``sizes`` that move, and the ``reason`` for which it stays."""

    node: fx.Node
    base: fx.Node
    sizes: list[Any]
    reason: str


def unsliced(graph: fx.Graph, finder: SiteFinder, flow: Flow, known: Collection[fx.Node]) -> Iterator[Unsliced]:
    """The nodes of ``graph`` that take a moving number of rows of a buffer. Nodes that are ``known``, or have extents, are left
    out."""
    floats = {s for n in graph.nodes if isinstance(n.meta.get("val"), torch.SymFloat) for s in symbols(n.meta["val"])}
    for node in graph.nodes:
        base = _taken_of(node) or _looked_up(node)
        if base is None or node in known or not finder.is_buffer(base) or any(map(flow.of, (node, *node.all_input_nodes))):
            continue
        said = {s for n in node.all_input_nodes if n is not base for s in symbols(n.meta["val"])}
        sizes = [size for t in (*tensors_of(node), *_places(node)) for size in t.shape if symbols(size) & said]
        at_positions, at_floats = ([s for s in sizes if symbols(s) & own] for own in (finder.positions.symbols, floats))
        if at_positions:
            yield Unsliced(node, base, at_positions, reasons.NO_SLICE.text(op=node.target))
        elif at_floats:
            yield Unsliced(node, base, at_floats, reasons.FROM_FLOAT.text())


def _taken_of(node: fx.Node) -> fx.Node | None:
    """The tensor of which ``node`` takes a part; None if it does something else."""
    if node.op != "call_function" or aliases.written(node):
        return None
    base = node.all_input_nodes[0] if node.target in _PICKS else aliases.base(node)
    if base is None or not is_tensor(base) or node.target is aten.expand.default:
        return None
    return base if all(_elements(part) <= _elements(base.meta["val"]) for part in tensors_of(node)) else None


def _looked_up(node: fx.Node) -> fx.Node | None:
    """The input of the graph, or the view of one, in which ``node`` looks up places; None if it does something else."""
    if not is_operator(node.target) or aliases.written(node) or torch.Tag.pointwise in node.target.tags or not _places(node):
        return None
    tables = [n for n in node.all_input_nodes if is_tensor(n) and n.meta["val"].is_floating_point()]
    return next((table for table in tables if aliases.root(table).op == "placeholder"), None)


def _places(node: fx.Node) -> list[torch.Tensor]:
    """The integer tensors that ``node`` takes."""
    taken = [t for n in node.all_input_nodes if isinstance(t := n.meta["val"], torch.Tensor) and t.dim()]
    return [t for t in taken if not (t.is_floating_point() or t.is_complex())]


def _elements(tensor: torch.Tensor) -> int:
    return math.prod(int(hint(size) or 0) for size in tensor.shape)
