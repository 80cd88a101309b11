"""Tensor twins: for a number of the graph, the 0-d int64 tensor that holds it on the device.

    s0 = placeholder (element 0 of idx)       s0
                                        ->    snapshot = aten.clone(idx)              once, where the graph is entered
    end = s0 + 1                              end
                                              s0_t = aten.select(aten.reshape(snapshot, [-1]), 0, 0)
                                              end_t = aten.add(s0_t, 1)

The snapshot matters: ``idx[0]`` is a view, and after ``idx[0] = end`` it reads the new value. A Python int becomes a
`full`, which the hand-off runs outside the static region.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.analysis.positions import Positions
from fxpass.errors import Refusal
from fxpass.graph.numbers import number
from fxpass.graph.schemas import ITEM

aten = torch.ops.aten

_ARITHMETIC: dict[Any, Callable[..., Any]] = {
    operator.add: aten.add.Tensor,
    operator.sub: aten.sub.Tensor,
    operator.mul: aten.mul.Tensor,
    operator.neg: aten.neg.default,
    operator.floordiv: aten.floor_divide.default,
    operator.mod: aten.remainder.Tensor,
    torch.sym_max: aten.maximum.default,
    torch.sym_min: aten.minimum.default,
    torch.sym_not: aten.logical_not.default,
    operator.and_: aten.bitwise_and.Tensor,
    operator.or_: aten.bitwise_or.Tensor,
    operator.xor: aten.bitwise_xor.Tensor,
    operator.lshift: aten.bitwise_left_shift.Tensor,
    operator.rshift: aten.bitwise_right_shift.Tensor,
}
_TENSORS_ONLY = {aten.maximum.default, aten.minimum.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor,
                 aten.bitwise_xor.Tensor, aten.bitwise_left_shift.Tensor, aten.bitwise_right_shift.Tensor,
                 aten.floor_divide.default, aten.remainder.Tensor}  # fmt: skip
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _ARITHMETIC[getattr(operator, _name)] = getattr(aten, _name).Tensor
    _TENSORS_ONLY.add(getattr(aten, _name).Tensor)


class Twins:
    """Makes and remembers the twins of one graph's numbers."""

    def __init__(self, graph: fx.Graph, positions: Positions) -> None:
        self.graph = graph
        self.positions = positions
        self._made: dict[tuple[Any, torch.device], fx.Node] = {}
        self._snapshots: dict[fx.Node, fx.Node] = {}
        self._entry = next(n for n in graph.nodes if n.op != "placeholder")

    def of(self, value: Any, device: torch.device) -> Any:
        """The twin of ``value`` on ``device``; an int stays an int.

        Raises:
            Refusal: the number is made by an operator without a tensor counterpart.
        """
        if not isinstance(value, fx.Node):
            return value
        node = self.positions.resolve(value)
        key = (node, device)
        if key not in self._made:
            self._made[key] = self._make(node, device)
        return self._made[key]

    def tensor(self, value: Any, device: torch.device, before: fx.Node) -> fx.Node:
        """The twin of ``value``, made before ``before`` if it is a plain int."""
        return self._tensor_before(self.of(value, device), device, before)

    def _make(self, node: fx.Node, device: torch.device) -> fx.Node:
        graph = self.graph
        if node.target in ITEM:
            with graph.inserting_before(node):
                copy = graph.call_function(aten.clone.default, (node.args[0],))
                flat = graph.call_function(aten.reshape.default, (copy, []))
                return graph.call_function(aten.to.device, (flat, device, torch.int64))
        if node in self.positions and node.op != "placeholder" and node.target not in (aten.sym_size.int,):
            fn = _ARITHMETIC.get(node.target)
            if node.target is getattr(torch, "sym_sum", None):
                return self._sum(list(node.args[0]), device, node)
            if fn is None or node.kwargs:
                raise Refusal(f"a position computed with {node.target} has no tensor twin")
            args = [self.of(a, device) for a in node.args]
            with graph.inserting_before(node):
                if fn in _TENSORS_ONLY:
                    args = [self._tensor(a, device) for a in args]
                if not isinstance(args[0], fx.Node):
                    args[0] = self._tensor(args[0], device)
                return graph.call_function(fn, tuple(args))
        return self._leaf(node, device)

    def _leaf(self, node: fx.Node, device: torch.device) -> fx.Node:
        graph = self.graph
        origin = self.positions.origins.get(node)
        tensor = origin.tensor if origin is not None else None
        if origin is None or tensor is None or tensor.meta["val"].device != device:
            place = self._entry if node.op == "placeholder" else node.next
            with graph.inserting_before(place):
                return graph.call_function(aten.full.default, ([], node), {"dtype": torch.int64, "device": device})
        with graph.inserting_before(self._entry):
            if tensor not in self._snapshots:
                copy = graph.call_function(aten.clone.default, (tensor,))
                flat = graph.call_function(aten.reshape.default, (copy, [-1]))
                self._snapshots[tensor] = graph.call_function(aten.to.dtype, (flat, torch.int64))
            return graph.call_function(aten.select.int, (self._snapshots[tensor], 0, origin.index))

    def _sum(self, terms: list[Any], device: torch.device, node: fx.Node) -> fx.Node:
        total = self._tensor_before(self.of(terms[0], device), device, node)
        for term in terms[1:]:
            twin = self.of(term, device)
            with self.graph.inserting_before(node):
                total = self.graph.call_function(aten.add.Tensor, (total, twin))
        return total

    def _tensor_before(self, value: Any, device: torch.device, node: fx.Node) -> fx.Node:
        with self.graph.inserting_before(node):
            return self._tensor(value, device)

    def _tensor(self, value: Any, device: torch.device) -> fx.Node:
        if isinstance(value, fx.Node):
            return value
        return self.graph.call_function(
            aten.full.default, ([], number(value)), {"dtype": torch.int64, "device": device}
        )
