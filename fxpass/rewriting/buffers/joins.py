"""The different ways to make a tensor longer are brought to one form, a `cat`, which `analysis.growth` looks for.

    hstack([past, new])                                     cat([past, new], 1)
    cat([past, new], 2, out=out)                            cat([past, new], 2)
    out = empty(s + n); out[:s] = past; out[s:] = new   ->  cat([past, new], 0)
    out = pad(past, (0, n)); out[s:] = new                  cat([past, new], 0)
    pad(past, (0, n))                                       cat([past, zeros(n)], 0)
    pad(new, (s, 0))                                        cat([zeros(s), new], 0)
    cat([past, new], 2)[:, :, -8:], which is all of it      cat([past, new], 2)

The last line is a window that is not full yet, which a guard of Dynamo's says. A tensor that is written in pieces becomes a
`cat` where its last piece is written. So no other op may read or write it before that. A padding, in front or behind, that is
not filled in this way becomes a `cat` with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import bounds_of, size_of, sliced_axis
from fxpass.graph.insertion import call, take_line
from fxpass.graph.layouts import is_contiguous
from fxpass.graph.normal_form import faking, mode_of
from fxpass.graph.numbers import equal, known, number, symbols
from fxpass.graph.schemas import arguments_by_name
from fxpass.graph.values import is_tensor

aten = torch.ops.aten

_JOINS = {aten.concat.default: (None, 1), aten.concatenate.default: (None, 1), aten.hstack.default: (1, 2),
          aten.vstack.default: (0, 2), aten.row_stack.default: (0, 2), aten.column_stack.default: (1, 2),
          aten.dstack.default: (2, 3)}  # fmt: skip
"""Operators that are a `cat` of tensors that have enough dims: along which dim (None where an argument says), and how many are
enough. Tensors of fewer dims are given more first."""


_PADS = {aten.pad.default, aten.constant_pad_nd.default}
"""Operators that pad."""


class _Piece(NamedTuple):
    """The ops ``writes`` copy ``source`` into ``rows`` rows of a tensor, from row ``start`` on."""

    start: Any
    rows: Any
    source: Any
    writes: tuple[fx.Node, ...]


def as_cats(gm: fx.GraphModule, moving: Set[Any]) -> None:
    """Replace by a `cat` everything in ``gm`` that joins tensors whose sizes have ``moving`` symbols."""
    for node in _moving_tensors(gm.graph, moving):
        if _is_whole(node):
            node.replace_all_uses_with(node.args[0], delete_user_cb=lambda user: user.op != "output")
        elif node.target in _JOINS:
            _as_cat(node)
        elif node.target is aten.cat.out:
            _without_out(node)
    aliases.remove_dead(gm.graph)
    for node in _moving_tensors(gm.graph, moving):
        if aliases.base(node) is None and is_contiguous(node.meta["val"]):
            _join_pieces(node, moving)
    for node in _moving_tensors(gm.graph, moving):
        if node.target in _PADS:
            _pad_as_cat(node, moving)
    gm.recompile()


def _moving_tensors(graph: fx.Graph, moving: Set[Any]) -> list[fx.Node]:
    made = [n for n in graph.nodes if n.op == "call_function" and is_tensor(n)]
    return [n for n in made if symbols(n.meta["val"]) & moving]


def _is_whole(node: fx.Node) -> bool:
    """Whether ``node`` is a slice that takes all rows."""
    axis = sliced_axis(node)
    value = node.meta["val"]
    return axis is not None and value.dim() == axis[0].meta["val"].dim() and equal(value.shape[axis[1]], size_of(*axis, node))


def _replace(node: fx.Node, other: Any) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def _as_cat(node: fx.Node) -> None:
    parts: Any = node.args[0]
    along, least = _JOINS[node.target]
    if any(p.meta["val"].dim() < least for p in parts):
        return
    dim = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) if along is None else along
    with node.graph.inserting_before(node):
        made = call(node.graph, aten.cat.default, list(parts), dim, like=node.meta["val"])
    take_line(made, node)
    _replace(node, made)


def _without_out(node: fx.Node) -> None:
    """Let ``node`` make a new tensor, if its ``out`` is new memory into which nothing else has been put."""
    out: Any = node.kwargs["out"]
    if out.op != "call_function" or aliases.base(out) is not None or next(iter(out.users)) is not node:
        return
    with node.graph.inserting_before(node):
        made = call(node.graph, aten.cat.default, *node.args, like=node.meta["val"])
    take_line(made, node)
    out.replace_all_uses_with(made, delete_user_cb=lambda user: user is not node)
    _replace(node, made)
    node.graph.erase_node(out)


def _join_pieces(node: fx.Node, moving: Set[Any]) -> None:
    """Put a `cat` in the place of ``node``, new memory that is filled piece by piece along the dim that moves."""
    value = node.meta["val"]
    dims = [d for d, size in enumerate(value.shape) if symbols(size) & moving]
    if len(dims) != 1:
        return
    pieces: list[_Piece] = []
    for found in _written(node, dims[0]):
        pieces.append(found)
        if (order := _in_order(pieces, value.shape[dims[0]])) is not None:
            break
    else:
        return
    writes = [n for piece in pieces for n in piece.writes]
    sources = [piece.source for piece in order]
    if len(sources) < 2 or not _are_alike([s.meta["val"] for s in sources], value, dims[0]) or _is_disturbed(node, writes):
        return
    with node.graph.inserting_after(writes[-1]):
        made = call(node.graph, aten.cat.default, sources, dims[0], like=value)
    take_line(made, writes[-1])
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user not in writes)
    for dead in [*reversed(writes), node]:
        node.graph.erase_node(dead)


def _written(node: fx.Node, dim: int) -> Iterator[_Piece]:
    """What ``node`` holds along ``dim`` when it is made, and what is copied into slices of it, in program order."""
    if (padded := _padded(node, dim)) is not None:
        source, before, _ = padded
        yield _Piece(before, source.meta["val"].shape[dim], source, ())
    for user in sorted(node.users):
        if sliced_axis(user) != (node, dim) or user.target is aten.select.int or len(user.users) != 1:
            return
        (copy,) = user.users
        if copy.target is not aten.copy_.default or copy.args[0] is not user or copy.users:
            return
        try:
            start, _ = bounds_of(user, size_of(node, dim, user))
        except Refusal:
            return
        yield _Piece(start, user.meta["val"].shape[dim], copy.args[1], (user, copy))


def _pad_as_cat(node: fx.Node, moving: Set[Any]) -> None:
    """Put a `cat` in the place of the padding ``node``, if it is a number on one side along a dim that moves."""
    given = arguments_by_name(node)
    value, graph = node.meta["val"], node.graph
    dims = [d for d, size in enumerate(value.shape) if symbols(size) & moving]
    if len(dims) != 1 or given.get("mode", "constant") != "constant" or (padded := _padded(node, dims[0])) is None:
        return
    (dim,), (source, before, behind) = dims, padded
    with faking(mode_of([value])), graph.inserting_before(node):
        sizes: list[Any] = list(value.shape)
        sizes[dim] = behind if equal(before, 0) else before
        for d in [d for d, size in enumerate(sizes) if isinstance(size, torch.SymInt)]:
            sizes[d] = call(graph, aten.sym_size.int, source, d)
        rows = call(graph, aten.full.default, sizes, given.get("value") or 0, dtype=value.dtype, device=value.device)
        parts = [source, rows] if equal(before, 0) else [rows, source]
        made = call(graph, aten.cat.default, parts, dim, like=value)
    take_line(made, node)
    _replace(node, made)


def _padded(node: fx.Node, dim: int) -> tuple[fx.Node, Any, Any] | None:
    """The tensor that ``node`` pads along ``dim``, and the rows that it adds before the first and behind the last one, one of
    which is 0. None if ``node`` is no such padding."""
    if node.target not in _PADS:
        return None
    source, widths = node.args[:2]
    first = 2 * (node.meta["val"].dim() - 1 - dim)
    before, behind = [*widths, *[0] * (first + 2)][first : first + 2]  # type: ignore[misc]
    others = [w for i, w in enumerate(widths) if i not in (first, first + 1)]  # type: ignore[arg-type]
    one_sided = (equal(before, 0) or equal(behind, 0)) and known(number(before) + number(behind) >= 0)
    if not one_sided or not all(isinstance(w, int) and w == 0 for w in others):
        return None
    return source, before, behind  # type: ignore[return-value]


def _in_order(pieces: list[_Piece], size: Any) -> list[_Piece] | None:
    """``pieces`` in the order of their rows, if together they are all of ``size`` rows; None otherwise."""
    order: list[_Piece] = []
    end: Any = 0
    while (following := next((p for p in pieces if p not in order and equal(p.start, end)), None)) is not None:
        order.append(following)
        end = end + number(following.rows)
    return order if equal(end, size) and len(order) == len(pieces) else None


def _are_alike(parts: list[torch.Tensor], whole: torch.Tensor, dim: int) -> bool:
    """Whether a `cat` of ``parts`` along ``dim`` equals copies into ``whole``, which would also cast and broadcast."""
    if {(p.dtype, p.device, p.dim()) for p in parts} != {(whole.dtype, whole.device, whole.dim())}:
        return False
    return all(equal(p.shape[d], size) for p in parts for d, size in enumerate(whole.shape) if d != dim)


def _is_disturbed(node: fx.Node, writes: list[fx.Node]) -> bool:
    """Whether another op than ``writes`` reads or writes ``node`` before the last of ``writes``."""
    between = node.next
    while between is not writes[-1]:
        if between not in writes and (aliases.written(between) or node in between.all_input_nodes):
            return True
        between = between.next
    return False
