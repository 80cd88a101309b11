"""Views: the extent moves with its axis.

permute(k, [0, 2, 1])         {1: e}  ->  {2: e}
expand(k, [b, h, n, d])       {2: e}  ->  {2: e}, and the size n becomes the full size
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.analysis.resizing import resized
from fxpass.errors import Refusal

aten = torch.ops.aten


def _rank(node: Any) -> int:
    return node.meta["val"].dim()


@rule(aten.permute)
def permute(node: fx.Node, flow: Flow) -> Extents:
    x, dims = node.args
    order = [d % _rank(x) for d in dims]
    return {order.index(d): e for d, e in flow.of(x).items()}


@rule(aten.transpose, aten.swapaxes)
def transpose(node: fx.Node, flow: Flow) -> Extents:
    x, a, b = node.args
    a, b = a % _rank(x), b % _rank(x)
    return {{a: b, b: a}.get(d, d): e for d, e in flow.of(x).items()}


@rule(aten.t, aten.numpy_T, aten.mT)
def t(node: fx.Node, flow: Flow) -> Extents:
    rank = _rank(node.args[0])
    return {rank - 1 - d if rank == 2 or node.target is aten.numpy_T.default else _swap_last(d, rank): e
            for d, e in flow.of(node.args[0]).items()}  # fmt: skip


def _swap_last(dim: int, rank: int) -> int:
    return {rank - 1: rank - 2, rank - 2: rank - 1}.get(dim, dim)


@rule(aten.unsqueeze)
def unsqueeze(node: fx.Node, flow: Flow) -> Extents:
    x, dim = node.args
    dim %= _rank(x) + 1
    return {d + (d >= dim): e for d, e in flow.of(x).items()}


@rule(aten.squeeze)
def squeeze(node: fx.Node, flow: Flow) -> Extents:
    x, *rest = node.args
    rank, shape = _rank(x), x.meta["val"].shape
    named = range(rank) if not rest else rest[0] if isinstance(rest[0], (list, tuple)) else [rest[0]]
    gone = {d % rank for d in named if isinstance(shape[d % rank], int) and shape[d % rank] == 1}
    return {d - sum(g < d for g in gone): e for d, e in flow.of(x).items()}


@rule(aten.view_as_real, aten._conj, aten._neg_view, aten.resolve_conj, aten.resolve_neg)
def same_dims(node: fx.Node, flow: Flow) -> Extents:
    """The same elements in another form. Of complex numbers, real and imaginary part become a new last dim."""
    return dict(flow.of(node.args[0]))


@rule(aten.view.dtype)
def view_as_dtype(node: fx.Node, flow: Flow) -> Extents:
    """Elements of another size become more or fewer along the last dim."""
    x = node.args[0]
    if _rank(x) - 1 in flow.of(x) and x.meta["val"].element_size() != node.meta["val"].element_size():  # type: ignore[union-attr]
        raise Refusal(reasons.AXIS_SPLIT, how="becomes elements of another size")
    return dict(flow.of(x))


@rule(aten.diagonal)
def diagonal(node: fx.Node, flow: Flow) -> Extents:
    """Two dims become one, the last. Where both have one valid length, so has the diagonal."""
    given: tuple[Any, ...] = node.args
    x, offset, first, second = given + (0, 0, 1)[len(given) - 1 :]
    own, pair = dict(flow.of(x)), [d % _rank(x) for d in (first, second)]
    found = [own.pop(d) for d in pair if d in own]
    out = {d - sum(gone < d for gone in pair): e for d, e in own.items()}
    if not found:
        return out
    if len(found) == 1 or offset != 0 or not found[0].same(found[1]):
        raise Refusal(reasons.AXIS_SPLIT, how="becomes a diagonal")
    return flow.merge(out, {_rank(node) - 1: found[0]}, {_rank(node) - 1: found[1]})


@rule(aten.view_as_complex)
def view_as_complex(node: fx.Node, flow: Flow) -> Extents:
    x = node.args[0]
    if _rank(x) - 1 in flow.of(x):
        raise Refusal(reasons.AXIS_SPLIT, how="becomes real and imaginary parts")
    return dict(flow.of(x))


@rule(aten.unbind, aten.chunk, aten.split, aten.split_with_sizes)
def split(node: fx.Node, flow: Flow) -> Extents:
    x = node.args[0]
    position = 1 if node.target is aten.unbind.int else 2
    dim = (node.args[position] if len(node.args) > position else node.kwargs.get("dim", 0)) % _rank(x)
    if dim in flow.of(x):
        raise Refusal(reasons.AXIS_SPLIT, how="is split")
    drop = node.target is aten.unbind.int
    return {d - (drop and d > dim): e for d, e in flow.of(x).items()}


@rule(aten.unfold)
def unfold(node: fx.Node, flow: Flow) -> Extents:
    """Windows along an axis, with a new last dim. The windows that are valid hold valid elements alone."""
    x, dim, size, step = node.args
    dim %= max(_rank(x), 1)
    own = dict(flow.of(x))
    if dim in own:
        if size in flow.positions or step in flow.positions:
            raise Refusal(reasons.BY_POSITION, op=node.target, how="which is the size or the step of its windows")
        own[dim] = resized(node, flow, own[dim], (operator.sub, size), (operator.floordiv, step), (operator.add, 1))
    return own


@rule(operator.getitem)
def element(node: fx.Node, flow: Flow) -> Extents:
    """An element of the tuple that `chunk`, `split` or `unbind` gives."""
    return dict(flow.of(node.args[0]))


@rule(aten.expand)
def expand(node: fx.Node, flow: Flow) -> Extents:
    x, sizes = node.args[0], list(node.args[1])
    shift = len(sizes) - _rank(x)
    out = {d + shift: e for d, e in flow.of(x).items()}
    out = flow.merge(out, _asked_for(sizes, flow))
    _set_sizes(node, flow, [-1 if d - shift in flow.of(x) else s for d, s in enumerate(sizes)], out)
    return out


@rule(aten.expand_as)
def expand_as(node: fx.Node, flow: Flow) -> Extents:
    x, other = node.args
    shift = _rank(other) - _rank(x)
    return flow.merge({d + shift: e for d, e in flow.of(x).items()}, flow.of(other))


def _asked_for(sizes: list[Any], flow: Flow) -> Extents:
    found = {d: flow.find(s) for d, s in enumerate(sizes) if s in flow.positions}
    return {d: e for d, e in found.items() if e is not None}


def _set_sizes(node: fx.Node, flow: Flow, sizes: list[Any], out: Extents) -> None:
    def build(b: Any) -> list[Any]:
        return [node.args[0], [b.full(out[d]) if d in out and s != -1 else s for d, s in enumerate(sizes)]]

    _resize(node, flow, build)


def _resize(node: fx.Node, flow: Flow, args: Any, target: Any = None) -> None:
    """Ask that ``node`` gets new arguments."""
    flow.replace(node, lambda b: b.call(target or node.target, *args(b)))
