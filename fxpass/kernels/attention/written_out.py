"""Finds attention that a model computes step by step, in the form that the rewrite has given it.

    s = matmul(q, transpose(repeat(k), 2, 3)) / scale + mask
    p = softmax(where(arange(S) < length, s, -inf), -1)              ->      Attention(k, v, length, mask, scale)
    o = matmul(where(arange(S) < length, p, 0), where(..., repeat(v), 0))

Casts and slices that take everything may stand in between. The kernel computes in float32, and so rounds less often.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph.marks import Attention

aten = torch.ops.aten

_CASTS = {aten.to.dtype, aten._to_copy.default, aten.type_as.default, aten.alias.default}
_MERGES = {aten.reshape.default, aten.view.default, aten._unsafe_view.default}


def written_out(node: fx.Node) -> tuple[fx.Node, Attention] | None:
    """The queries and the attention that the product ``node`` computes of them; None if it is no such attention."""
    if node.target is not aten.matmul.default:
        return None
    weights, values = (_filled(_node(a)) for a in node.args)
    softmax = _uncast(weights)
    if softmax.target is not aten.softmax.int or softmax.args[1] not in (-1, 3):
        return None
    scores = _uncast(_node(softmax.args[0]))
    length = _length(scores)
    if length is None or _constant(scores.args[2]) != -torch.inf:
        return None
    product, mask, scale = _scaled(_uncast(_node(scores.args[1])))
    if product.target is not aten.matmul.default:
        return None
    q, keys = (_node(a) for a in product.args)
    if keys.target is not aten.transpose.int or {d % 4 for d in keys.args[1:]} != {2, 3}:  # type: ignore[operator]
        return None
    if any(n.meta["val"].dim() != 4 for n in (q, keys, values)) or _sizes(product) != _sizes(softmax):
        return None
    return q, Attention(_filled(_node(keys.args[0])), values, length, mask, False, scale)


def _node(argument: Any) -> fx.Node:
    assert isinstance(argument, fx.Node)
    return argument


def _uncast(node: fx.Node) -> fx.Node:
    while node.target in _CASTS or node.target is aten.slice.Tensor and _sizes(node) == _sizes(_node(node.args[0])):
        node = _node(node.args[0])
    return node


def _filled(node: fx.Node) -> fx.Node:
    """The node that ``node`` equals in its valid part, if ``node`` is zero everywhere else; ``node`` itself otherwise."""
    node = _uncast(node)
    zero = node.target is aten.where.self and _constant(node.args[2]) == 0
    return _node(node.args[1]) if zero and _length(node) is not None else node


def _constant(argument: Any) -> Any:
    """The number that the tensor ``argument`` was made from; None if it was made otherwise."""
    made = isinstance(argument, fx.Node) and argument.target is aten.scalar_tensor.default
    return argument.args[0] if made else None


def _length(where: fx.Node) -> fx.Node | None:
    """The length n, if ``where`` is a `where` of ``arange(S) < n`` along the last axis or the last but one."""
    if where.target is not aten.where.self:
        return None
    valid = _node(where.args[0])
    if valid.target is aten.unsqueeze.default and valid.args[1] == -1:
        valid = _node(valid.args[0])
    if valid.target is not aten.lt.Tensor or valid.meta["val"].dim() != 1:
        return None
    columns, length = (_node(a) for a in valid.args)
    counts = columns.target is aten.arange.default and length.meta["val"].dim() == 0
    return length if counts else None


def _scaled(node: fx.Node) -> tuple[fx.Node, fx.Node | None, float]:
    """``node`` as a product, the mask that is added to it, and the number that it is multiplied by."""
    mask, scale = None, 1.0
    while True:
        node = _uncast(node)
        if node.target is aten.add.Tensor and mask is None and scale == 1.0 and not node.kwargs:
            first, second = node.args
            if not isinstance(second, fx.Node):
                return node, mask, scale
            node, mask = _node(first), second
        elif node.target is aten.mul.Tensor and isinstance(node.args[1], (int, float)):
            node, scale = _node(node.args[0]), scale * node.args[1]
        elif node.target is aten.div.Tensor and isinstance(node.args[1], (int, float)):
            node, scale = _node(node.args[0]), scale / node.args[1]
        else:
            return node, mask, scale


def unrepeated(node: fx.Node) -> tuple[fx.Node, Sequence[int]]:
    """The keys or values whose heads ``node`` (batch, heads, size, dim) repeats, and the order of their axes in ``node``."""
    axes = [0, 1, 2, 3]
    if node.target is aten.transpose.int and {d % 4 for d in node.args[1:]} == {1, 2}:  # type: ignore[operator]
        node, axes = _node(node.args[0]), [0, 2, 1, 3]
    source = _repeated(node, axes[1])
    return (node, axes) if source is None else (source, axes)


def _repeated(node: fx.Node, axis: int) -> fx.Node | None:
    """The node whose entries along ``axis`` stand several times in a row in ``node``; None if there is none."""
    if node.target is aten.repeat_interleave.self_int:
        return _node(node.args[0]) if [*node.args, node.kwargs.get("dim")][2] == axis else None
    expanded = node.args[0] if node.target in _MERGES else None
    if not isinstance(expanded, fx.Node) or expanded.target is not aten.expand.default:
        return None
    apart = _node(expanded.args[0])
    if apart.target is not aten.unsqueeze.default or apart.args[1] != axis + 1:
        return None
    source = _node(apart.args[0])
    shape, wide = _sizes(source), _sizes(expanded)
    heads, times = source.meta["val"].shape[axis], expanded.meta["val"].shape[axis + 1]
    as_wide = wide == [*shape[: axis + 1], str(times), *shape[axis + 1 :]]
    merged = _sizes(node) == [*shape[:axis], str(heads * times), *shape[axis + 1 :]]
    return source if as_wide and merged else None


def _sizes(node: fx.Node) -> list[str]:
    """The sizes of ``node`` as text. Comparing them adds no guards: two symbols are equal if they are the same symbol."""
    return [str(size) for size in node.meta["val"].shape]
