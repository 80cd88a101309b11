"""What rewrites insert: full sizes, masks of what is valid, filled operands, and means of the valid part alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import Cut, Extent, Extents, Fill
from fxpass.analysis.kinds import Kinds

from . import bits
from .node_builder import NodeBuilder
from .twins import Twins

aten = torch.ops.aten


class Builder(NodeBuilder):
    """Makes what the rules of the analysis ask for, before the current node."""

    def __init__(self, graph: fx.Graph, twins: Twins, kinds: Kinds) -> None:
        super().__init__(graph, twins, kinds)
        self._given = {node: (node.args, node.kwargs) for node in graph.nodes}
        self._filled: dict[fx.Node, dict[fx.Node, fx.Node]] = {}
        self._masks: list[tuple[Extent, torch.device, fx.Node]] = []

    def full(self, extent: Extent) -> Any:
        """The full size of the axis of ``extent``, as an argument."""
        return self.number(extent.full)

    def valid(self, extent: Extent, device: torch.device) -> fx.Node:
        """bool[full size], True below the length of ``extent``. Equal extents share one mask, made at its first use."""
        for known, where, mask in self._masks:
            if where == device and known.same(extent):
                return mask
        steps = self.call(aten.arange.default, self.full(extent), device=device)
        mask = self.call(aten.lt.Tensor, steps, self.twin(extent.length, device))
        self._masks.append((extent, device, mask))
        return mask

    def fill(self, edit: Fill | Cut) -> None:
        """Make the filled, or cut, operand that ``edit.user`` is to take."""
        operand = self.operand(edit.user, edit.operand)
        if isinstance(edit, Fill):
            made = self.filled(operand, edit.operand.meta["val"], edit.extents, edit.value)
        else:
            made = self.cut(operand, edit.extents)
        self._filled.setdefault(edit.user, {})[edit.operand] = made

    def cut(self, x: fx.Node, extents: Extents) -> fx.Node:
        """A view of ``x`` with the full sizes of ``extents``."""
        for dim, extent in extents.items():
            x = self.call(aten.slice.Tensor, x, dim, 0, self.full(extent))
        return x

    def check_index(self, index: fx.Node, extent: Extent, like: fx.Node, first: int = 0) -> None:
        """Assert that ``first * length <= index < length`` for all elements of ``index``, on the device of ``like``.

        ``length`` is that of ``extent``; ``first`` is 0, or -1 where an index may count from the end.
        """
        length = self.tensor(extent.length, like.meta["val"].device)
        low = self.call(aten.ge.Tensor, index, self.call(aten.mul.Tensor, length, first))
        inside = self.call(aten.logical_and.default, low, self.call(aten.lt.Tensor, index, length))
        whole = self.call(aten.all.default, inside)
        self.call(aten._assert_async.msg, whole, "index out of range of the rows of a slice that are valid")

    def filled(self, x: fx.Node, like: torch.Tensor, extents: Extents, value: Any) -> fx.Node:
        """``x``, which has the shape and dtype of ``like``, with ``value`` in its invalid part."""
        for dim, extent in extents.items():
            kind = bits.moved_as(like.dtype)
            other = self.call(
                aten.scalar_tensor.default, bits.moved_number(value, like.dtype), dtype=kind, device=like.device
            )
            whole = self.call(aten.where.self, self.valid_along(extent, like, dim), self.bits(x, like.dtype), other)
            x = self.back(whole, like.dtype)
        return x

    def bits(self, x: fx.Node, dtype: torch.dtype) -> fx.Node:
        """A view of ``x``, which is of ``dtype``, in the dtype that its elements are moved in (see the module `bits`)."""
        kind = bits.moved_as(dtype)
        return x if kind is dtype else self.call(aten.view.dtype, x, kind)

    def back(self, x: fx.Node, dtype: torch.dtype) -> fx.Node:
        """A view of ``x``, which the method `bits` has made, in ``dtype`` again."""
        return x if bits.moved_as(dtype) is dtype else self.call(aten.view.dtype, x, dtype)

    def taken(self, x: fx.Node, dim: int, slots: fx.Node) -> fx.Node:
        """The rows ``slots`` of ``x`` along ``dim``."""
        dtype = x.meta["val"].dtype
        return self.back(self.call(aten.index_select.default, self.bits(x, dtype), dim, slots), dtype)

    def valid_along(self, extent: Extent, like: torch.Tensor, dim: int) -> fx.Node:
        """The mask of `valid` along ``dim`` of a tensor of the rank of ``like``, to be broadcast along the others."""
        return self.along(self.valid(extent, like.device), like.dim(), dim)

    def operand(self, user: fx.Node, operand: fx.Node) -> fx.Node:
        """What ``user`` is to take in the place of ``operand``."""
        return self._filled.get(user, {}).get(operand, operand)

    def arguments(self, user: fx.Node) -> tuple[Any, Any]:
        """The arguments of ``user``, with what it is to take in the place of each.

        They are those of the graph as it came: two slices of one buffer are two operands, and later both are the buffer.
        """
        return fx.map_arg(self._given[user], lambda operand: self.current(self.operand(user, operand)))

    def is_filled(self, user: fx.Node) -> bool:
        """Whether ``user`` is to take an operand that is filled, or cut."""
        return user in self._filled

    def attention_mask(self, extent: Extent, mask: Any, q: fx.Node, is_causal: bool) -> fx.Node:
        """The model's ``mask`` (bool, float or None) joined with what is valid; its last two dims are (queries, full size)."""
        device = q.meta["val"].device
        seen = self.call(aten.unsqueeze.default, self.valid(extent, device), 0)
        if is_causal:
            rows = self.call(aten.arange.default, self.size(q, q.meta["val"].dim() - 2), device=device)
            columns = self.call(aten.arange.default, self.full(extent), device=device)
            below = self.call(aten.le.Tensor, columns, self.call(aten.unsqueeze.default, rows, 1))
            seen = self.call(aten.logical_and.default, seen, below)
        if mask is None:
            return seen
        if mask.meta["val"].dtype is torch.bool:
            return self.call(aten.logical_and.default, mask, seen)
        dtype = mask.meta["val"].dtype
        hidden = self.call(aten.scalar_tensor.default, float("-inf"), dtype=dtype, device=device)
        return self.call(aten.where.self, seen, mask, hidden)

    @staticmethod
    def accumulated_in(dtype: torch.dtype) -> torch.dtype:
        """The dtype in which PyTorch sums and divides before it rounds to ``dtype``."""
        return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype

    def count(self, x: fx.Node, dims: Iterable[int], extents: Extents) -> Any:
        """The number of elements of ``x`` along ``dims`` that are valid: an int, or a 0-d tensor."""
        value, count = x.meta["val"], 1
        for size in (value.shape[d] for d in dims if d not in extents and isinstance(value.shape[d], int)):
            count *= size
        moving = [d for d in dims if d not in extents and not isinstance(value.shape[d], int)]
        for factor in [*(self.size(x, d) for d in moving), *(extents[d].length for d in dims if d in extents)]:
            count = self.call(aten.mul.Tensor, self.twin(factor, value.device), count)
        return count

    def mean(self, x: fx.Node, dims: list[int], keepdim: bool, extents: Extents, dtype: Any) -> fx.Node:
        """The mean of the valid elements of ``x`` over ``dims``."""
        kind = dtype or x.meta["val"].dtype
        wide = self.accumulated_in(kind)
        total = self.call(aten.sum.dim_IntList, self.operand(self.node, x), dims, keepdim, dtype=wide)
        out = self.call(aten.div.Tensor, total, self.call(aten.to.dtype, self.count(x, dims, extents), wide))
        return out if wide is kind else self.call(aten.to.dtype, out, kind)

    def triangle(self, node: fx.Node, x: fx.Node, diagonal: Any) -> fx.Node:
        """``tril`` or ``triu`` of ``x``, as ``node`` is or does in place, with a diagonal that is a position."""
        rank, device = x.meta["val"].dim(), x.meta["val"].device
        rows = self.call(aten.arange.default, self.call(aten.sym_size.int, x, rank - 2), device=device)
        columns = self.call(aten.arange.default, self.call(aten.sym_size.int, x, rank - 1), device=device)
        offset = self.call(aten.sub.Tensor, columns, self.call(aten.unsqueeze.default, rows, 1))
        compare = aten.le.Tensor if node.target in (aten.tril.default, aten.tril_.default) else aten.ge.Tensor
        inside = self.call(compare, offset, self.twin(diagonal, device))
        zero = self.call(aten.scalar_tensor.default, 0, dtype=x.meta["val"].dtype, device=device)
        return self.call(aten.where.self, inside, x, zero)

    def along(self, mask: fx.Node, rank: int, dim: int) -> fx.Node:
        """The 1-d ``mask`` as dim ``dim`` of a tensor of ``rank`` dims, to be broadcast along the others."""
        for _ in range(rank - 1 - dim):
            mask = self.call(aten.unsqueeze.default, mask, -1)
        return mask
