"""The nodes that rewrites are made of: full sizes, masks of what is valid, cleaned operands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import Cut, Extent, Extents, Fill
from fxpass.analysis.kinds import Kinds
from fxpass.graph.marks import Marks
from fxpass.graph.numbers import Derived
from fxpass.torch_internals.operators import tree_leaves

from . import bits
from .twins import Twins

aten = torch.ops.aten


class Builder:
    """Inserts nodes before the current one. ``at(node)`` moves on; nodes already replaced are looked up on the way."""

    def __init__(self, graph: fx.Graph, twins: Twins, kinds: Kinds) -> None:
        self.graph = graph
        self.twins = twins
        self._kinds = kinds
        self.node: fx.Node = next(iter(graph.nodes))
        self.marks = Marks()
        self.dropped: list[fx.Node] = []
        self._made: set[fx.Node] = set()
        self._replaced: dict[fx.Node, Any] = {}
        self._filled: dict[fx.Node, dict[fx.Node, fx.Node]] = {}
        self._masks: list[tuple[Extent, torch.device, fx.Node]] = []

    def at(self, node: fx.Node) -> Builder:
        self.node = node
        return self

    @property
    def device(self) -> torch.device:
        """Where the tensor that the current node gives is."""
        return self.node.meta["val"].device

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of ``target`` in the place of the current node, with its source line."""
        if any(
            isinstance(a, (torch.SymInt, torch.SymFloat, torch.SymBool, Derived)) for a in tree_leaves((args, kwargs))
        ):
            raise TypeError(f"a number that is no node, in the arguments of {target}")
        args, kwargs = fx.node.map_arg((args, kwargs), lambda n: self._replaced.get(n, n))
        with self.graph.inserting_before(self.node):
            made = self.graph.call_function(target, args, kwargs)
        self._made.add(made)
        made.meta.update({k: self.node.meta[k] for k in ("stack_trace", "nn_module_stack") if k in self.node.meta})
        return made

    def replace(self, node: fx.Node, new: Any) -> None:
        """Let every use of ``node`` see ``new``."""
        self._replaced[node] = new
        if isinstance(new, fx.Node):
            new.meta.setdefault("val", node.meta["val"])  # its dtype and rank, until values are propagated anew
        node.replace_all_uses_with(new)

    def drop(self, node: fx.Node) -> None:
        """``node`` has been replaced, and may look impure (attention does): take it out at the end of the sweep."""
        self.dropped.append(node)

    def current(self, node: fx.Node) -> Any:
        """What stands for ``node`` by now."""
        return self._replaced.get(node, node)

    def is_new(self, node: fx.Node) -> bool:
        return node in self._made

    def full(self, extent: Extent) -> Any:
        """The full size of the extent's axis."""
        return self.number(extent.full)

    def size(self, node: fx.Node, dim: int) -> Any:
        """The size of ``node`` along ``dim``: an int, or a node that gives it."""
        size = node.meta["val"].shape[dim]
        if isinstance(size, int):
            return size
        made = self.call(aten.sym_size.int, node, dim)
        made.meta["val"] = size
        return made

    def number(self, value: Any) -> Any:
        """``value`` as an argument of the graph: an int, or a node that gives it."""
        if not isinstance(value, Derived):
            return value
        made = self.call(value.fn, *map(self.number, value.args))
        made.meta["val"] = value.value
        return made

    def steady(self, size: Any) -> Any:
        """``size``, of a tensor, as an argument of the graph: an int, or a node; None where it moves from step to step."""
        return self.number(self._kinds.number(size, self.node))

    def twin(self, value: Any, device: torch.device) -> Any:
        return self.twins.of(value, device)

    def tensor(self, value: Any, device: torch.device) -> fx.Node:
        """The twin of ``value``, of a plain int too."""
        return self.twins.tensor(value, device, self.node)

    def valid(self, extent: Extent, device: torch.device) -> fx.Node:
        """bool[full size], True below the extent's length. Made once for equal extents: the first use dominates."""
        for known, where, mask in self._masks:
            if where == device and known.same(extent):
                return mask
        steps = self.call(aten.arange.default, self.full(extent), device=device)
        mask = self.call(aten.lt.Tensor, steps, self.twin(extent.length, device))
        self._masks.append((extent, device, mask))
        return mask

    def fill(self, edit: Fill | Cut) -> None:
        """Insert the filled, or cut, operand that ``edit.user`` is to see."""
        operand = self.operand(edit.user, edit.operand)
        if isinstance(edit, Fill):
            made = self.filled(operand, edit.operand.meta["val"], edit.extents, edit.value)
        else:
            made = self.cut(operand, edit.extents)
        self._filled.setdefault(edit.user, {})[edit.operand] = made

    def cut(self, x: fx.Node, extents: Extents) -> fx.Node:
        """``x`` of the full sizes of ``extents``: a view."""
        for dim, extent in extents.items():
            x = self.call(aten.slice.Tensor, x, dim, 0, self.full(extent))
        return x

    def check_index(self, index: fx.Node, extent: Extent, like: fx.Node, first: int = 0) -> None:
        """Insert an assertion that the elements of ``index``, on the device of ``like``, are from ``first * length`` on, and
        below the length of ``extent``."""
        length = self.tensor(extent.length, like.meta["val"].device)
        low = self.call(aten.ge.Tensor, index, self.call(aten.mul.Tensor, length, first))
        inside = self.call(aten.logical_and.default, low, self.call(aten.lt.Tensor, index, length))
        whole = self.call(aten.all.default, inside)
        self.call(aten._assert_async.msg, whole, "index out of range of the rows of a slice that are valid")

    def filled(self, x: fx.Node, like: torch.Tensor, extents: Extents, value: Any) -> fx.Node:
        """``x``, with the shape and dtype of ``like``, with ``value`` where it is not valid."""
        for dim, extent in extents.items():
            kind = bits.moved_as(like.dtype)
            other = self.call(
                aten.scalar_tensor.default, bits.number(value, like.dtype), dtype=kind, device=like.device
            )
            whole = self.call(aten.where.self, self.valid_along(extent, like, dim), self.bits(x, like.dtype), other)
            x = self.back(whole, like.dtype)
        return x

    def bits(self, x: fx.Node, dtype: torch.dtype) -> fx.Node:
        """``x``, of ``dtype``, as what its elements are moved as: a view, see `bits`."""
        kind = bits.moved_as(dtype)
        return x if kind is dtype else self.call(aten.view.dtype, x, kind)

    def back(self, x: fx.Node, dtype: torch.dtype) -> fx.Node:
        """``x``, which `bits` has made, as ``dtype`` again."""
        return x if bits.moved_as(dtype) is dtype else self.call(aten.view.dtype, x, dtype)

    def taken(self, x: fx.Node, dim: int, slots: fx.Node) -> fx.Node:
        """The rows ``slots`` of ``x`` along ``dim``."""
        dtype = x.meta["val"].dtype
        return self.back(self.call(aten.index_select.default, self.bits(x, dtype), dim, slots), dtype)

    def valid_along(self, extent: Extent, like: torch.Tensor, dim: int) -> fx.Node:
        """What is valid along ``dim`` of a tensor of the rank of ``like``, broadcast along all others."""
        return self.along(self.valid(extent, like.device), like.dim(), dim)

    def operand(self, user: fx.Node, operand: fx.Node) -> fx.Node:
        """What ``user`` is to see in the place of ``operand``."""
        return self._filled.get(user, {}).get(operand, operand)

    def filled_operands(self, user: fx.Node) -> dict[fx.Node, fx.Node]:
        return self._filled.get(user, {})

    def attention_mask(self, extent: Extent, mask: Any, q: fx.Node, is_causal: bool) -> fx.Node:
        """The model's mask (bool, float or None) joined with what is valid; last two dims (queries, full size)."""
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
        """What PyTorch adds up in, and divides in, before it rounds to ``dtype``."""
        return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype

    def count(self, x: fx.Node, dims: Iterable[int], extents: Extents) -> Any:
        """How many elements of ``x`` along ``dims`` are valid: an int, or a 0-d tensor."""
        value, count = x.meta["val"], 1
        for size in (value.shape[d] for d in dims if d not in extents and isinstance(value.shape[d], int)):
            count *= size
        moving = [d for d in dims if d not in extents and not isinstance(value.shape[d], int)]
        for factor in [*(self.size(x, d) for d in moving), *(extents[d].length for d in dims if d in extents)]:
            count = self.call(aten.mul.Tensor, self.twin(factor, value.device), count)
        return count

    def mean(self, x: fx.Node, dims: list[int], keep: bool, extents: Extents, dtype: Any) -> fx.Node:
        """Sum over ``dims`` divided by how many of the summed elements are valid."""
        kind = dtype or x.meta["val"].dtype
        wide = self.accumulated_in(kind)
        total = self.call(aten.sum.dim_IntList, self.operand(self.node, x), dims, keep, dtype=wide)
        out = self.call(aten.div.Tensor, total, self.call(aten.to.dtype, self.count(x, dims, extents), wide))
        return out if wide is kind else self.call(aten.to.dtype, out, kind)

    def triangle(self, node: fx.Node, x: fx.Node, diagonal: Any) -> fx.Node:
        """``tril``/``triu`` with a diagonal that is a position."""
        rank, device = x.meta["val"].dim(), x.meta["val"].device
        rows = self.call(aten.arange.default, self.call(aten.sym_size.int, x, rank - 2), device=device)
        columns = self.call(aten.arange.default, self.call(aten.sym_size.int, x, rank - 1), device=device)
        offset = self.call(aten.sub.Tensor, columns, self.call(aten.unsqueeze.default, rows, 1))
        compare = aten.le.Tensor if node.target is aten.tril.default else aten.ge.Tensor
        kept = self.call(compare, offset, self.twin(diagonal, device))
        zero = self.call(aten.scalar_tensor.default, 0, dtype=x.meta["val"].dtype, device=device)
        return self.call(aten.where.self, kept, x, zero)

    def along(self, mask: fx.Node, rank: int, dim: int) -> fx.Node:
        """``mask``, of one dim, as dim ``dim`` of ``rank``: broadcast along all others."""
        for _ in range(rank - 1 - dim):
            mask = self.call(aten.unsqueeze.default, mask, -1)
        return mask
