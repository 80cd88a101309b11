"""Tensor twins: the twin of a number is a 0-d tensor on the device that holds the same value, of int64, float64 or bool.

    s0 = placeholder (element 0 of idx)       s0
                                        ->    snapshot = aten.clone(idx)              once, where the graph is entered
    end = s0 + 1                              end
                                              s0_t = aten.select(aten.reshape(snapshot, [-1]), 0, 0)
                                              end_t = aten.add(s0_t, 1)

The snapshot is needed since ``idx[0]`` is a view, which reads the new value after ``idx[0] = end``. A number of the caller's
becomes a `full`, which runs outside of the static core. A number that analysis has derived has a twin, and no node.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis import arithmetic
from fxpass.analysis.arithmetic import call_of, is_float, is_leaf
from fxpass.analysis.positions import Origin, Positions
from fxpass.errors import Refusal
from fxpass.graph.numbers import Derived
from fxpass.graph.schemas import ITEM

aten = torch.ops.aten


class Twins:
    """Makes the twins of the numbers of one graph, each once."""

    def __init__(self, graph: fx.Graph, positions: Positions) -> None:
        self.graph = graph
        self.positions = positions
        self._made: dict[tuple[Any, torch.device], fx.Node] = {}
        self._snapshots: dict[fx.Node, fx.Node] = {}
        self._checked: Set[Any] = frozenset()
        self._entry = next(n for n in graph.nodes if n.op != "placeholder")

    def of(self, value: Any, device: torch.device) -> Any:
        """The twin of ``value`` on ``device``; an int stays an int.

        Raises:
            Refusal: the number is made by an operator without a tensor counterpart.
        """
        value = self.positions.resolve(value)
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            raise Refusal(reasons.NO_TWIN, op=f"what no node of the graph gives, {value},")
        if not isinstance(value, (fx.Node, Derived)):
            return value
        key = (value, device)
        if key not in self._made:
            self._checked = arithmetic.check(value, self.positions, self._checked)
            self._made[key] = self._make(value, device)
        return self._made[key]

    def tensor(self, value: Any, device: torch.device, before: fx.Node) -> fx.Node:
        """The twin of ``value``. That of a plain number is made before the node ``before``."""
        return self._tensor(self.of(value, device), device, before)

    def _make(self, value: fx.Node | Derived, device: torch.device) -> fx.Node:
        if is_leaf(value, self.positions):
            return self._derived_leaf(value, device) if isinstance(value, Derived) else self._leaf(value, device)
        place = value.place if isinstance(value, Derived) else value
        target, args = call_of(value)
        if target is arithmetic.SUM:
            return self._sum(list(args[0]), device, place)
        form = arithmetic.TENSOR_FORMS[target]
        if target in arithmetic.ROUNDING:
            return self._rounded(form, args[0], device, place)
        twins = [self.of(a, device) for a in args]
        if target in arithmetic.FLOATS or any(is_float(a) for a in args):
            twins = [self._wide(t, a, device, place) for t, a in zip(twins, args, strict=True)]
        elif target not in arithmetic.TAKE_NUMBERS or not isinstance(twins[0], fx.Node):
            twins = [self._tensor(t, device, place) for t in twins]
        return self._call(form, tuple(twins), place)

    def _rounded(self, form: Any, value: Any, device: torch.device, place: fx.Node) -> fx.Node:
        twin = self.tensor(value, device, place)
        if not is_float(value):
            return twin
        return self._call(aten.to.dtype, (self._call(form, (twin,), place), torch.int64), place)

    def _wide(self, twin: Any, value: Any, device: torch.device, place: fx.Node) -> fx.Node:
        twin = self._tensor(twin, device, place)
        return twin if is_float(value) else self._call(aten.to.dtype, (twin, torch.float64), place)

    def _sum(self, terms: list[Any], device: torch.device, place: fx.Node) -> fx.Node:
        total = self.tensor(terms[0], device, place)
        for term in terms[1:]:
            total = self._call(aten.add.Tensor, (total, self.of(term, device)), place)
        return total

    def _leaf(self, node: fx.Node, device: torch.device) -> fx.Node:
        if node.target in ITEM:
            copy = self._call(aten.clone.default, (node.args[0],), node)
            flat = self._call(aten.reshape.default, (copy, []), node)
            dtype = torch.float64 if is_float(node) else torch.int64
            return self._call(aten.to.device, (flat, device, dtype), node)
        origin = self.positions.origins.get(node)
        tensor = origin.tensor if origin is not None else None
        if origin is None or tensor is None or tensor.meta["val"].device != device:
            return self._full(node, device, self._entry if node.op == "placeholder" else node.next)
        if tensor not in self._snapshots:
            copy = self._call(aten.clone.default, (tensor,), self._entry)
            flat = self._call(aten.reshape.default, (copy, [-1]), self._entry)
            self._snapshots[tensor] = self._call(aten.to.dtype, (flat, torch.int64), self._entry)
        return self._taken(origin, self._snapshots[tensor])

    def _taken(self, origin: Origin, numbers: fx.Node) -> fx.Node:
        """What ``origin`` says of ``numbers``."""
        if origin.extreme is None:
            return self._call(aten.select.int, (numbers, 0, origin.index), self._entry)
        fn, places = origin.extreme
        some = self._call(aten.slice.Tensor, (numbers, 0, places.start, places.stop, places.step), self._entry)
        return self._call({max: aten.amax.default, min: aten.amin.default}[fn], (some, [0]), self._entry)

    def _derived_leaf(self, size: Derived, device: torch.device) -> fx.Node:
        made = self._call(size.fn, size.args, size.place)
        made.meta["val"] = size.value
        return self._full(made, device, size.place)

    def _tensor(self, value: Any, device: torch.device, place: fx.Node) -> fx.Node:
        return value if isinstance(value, fx.Node) else self._full(value, device, place)

    def _full(self, value: Any, device: torch.device, place: fx.Node) -> fx.Node:
        dtype = torch.float64 if is_float(value) else torch.int64
        return self._call(aten.full.default, ([], value), place, dtype=dtype, device=device)

    def _call(self, target: Any, args: tuple[Any, ...], place: fx.Node, **kwargs: Any) -> fx.Node:
        with self.graph.inserting_before(place):
            return self.graph.call_function(target, args, kwargs)
