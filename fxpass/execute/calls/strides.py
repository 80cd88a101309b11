"""Inputs whose strides move from call to call: a core sees them with strides that do not.

    x: f32[2, 1, 8], strides (s0, 8, 1)       a row of a longer and longer series      core(x.contiguous())
    k: f32[1, 64, 8], strides (s1, 8, 1)      contiguous but for a dim of size 1       core(k.as_strided(k.shape, (512, 8, 1)))
    y: f32[2, 3, 8], strides (1, 2, s2)       a part of what is permuted               core(a copy with strides (1, 2, 6))

A small input is copied, with its dims in the order in which they lie, since what PyTorch computes from it lies so, too. A large
one, or one that is written to or returned, is only viewed: where it is not contiguous, a core is compiled for each value of its
strides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass.analysis.kinds import layouts
from fxpass.graph import aliases
from fxpass.graph.memory_addresses import memory_address, memory_addresses
from fxpass.graph.numbers import hint, symbols
from fxpass.graph.values import is_tensor
from fxpass.rewriting.outside.result_layout import undone

aten = torch.ops.aten

MOST_ELEMENTS = 2**20
"""A larger input is not copied."""


@dataclasses.dataclass(frozen=True)
class Strided:
    """The places of a graph's inputs with moving strides, each with the order of its dims in memory, from the outermost on,
    and the order that undoes it.

    Those in ``copied`` may be copied, unless they share memory with an input at one of the places ``written``.
    """

    orders: Mapping[int, tuple[Sequence[int], Sequence[int]]]
    copied: Set[int]
    written: Sequence[int]

    @classmethod
    def of(cls, gm: fx.GraphModule) -> Strided:
        """The inputs of ``gm`` with moving strides."""
        inputs, written = gm.graph.find_nodes(op="placeholder"), aliases.written_inputs(gm.graph)
        shown = {aliases.storage(n) for n in (*gm.graph.output_node().all_input_nodes, *written)}
        moving = _moving(gm)
        places = {i: n for i, n in enumerate(inputs) if n in moving}
        copied = {i for i, n in places.items() if aliases.storage(n) not in shown and _is_small(n.meta["val"])}
        found = {i: _order(n.meta["val"], i in copied) for i, n in places.items()}
        orders = {i: (order, undone(order)) for i, order in found.items()}
        return cls(orders, copied, [i for i, n in enumerate(inputs) if n in written])

    def __call__(self, values: list[Any]) -> None:
        for i, (order, back) in self.orders.items():
            value = values[i].permute(order)
            if not value.is_contiguous():
                if i not in self.copied or self._is_written(value, values):
                    continue
                value = value.contiguous()
            values[i] = value.as_strided(value.shape, _contiguous(value.shape)).permute(back)

    def _is_written(self, value: torch.Tensor, values: Sequence[Any]) -> bool:
        return memory_address(value) in memory_addresses(values[i] for i in self.written)


def kept_strides(gm: fx.GraphModule) -> set[Any]:
    """The symbols in strides of ``gm`` that a core is compiled for each value of."""
    strided, inputs = Strided.of(gm), gm.graph.find_nodes(op="placeholder")
    viewed = [v for i in strided.orders if i not in strided.copied and not _is_contiguous(v := inputs[i].meta["val"])]
    return {s for value in viewed for stride in value.stride() for s in symbols(stride)} & layouts(gm.graph)


def _moving(gm: fx.GraphModule) -> set[fx.Node]:
    """The inputs whose strides have symbols that are in no size, but for inputs of which only a size is read."""
    moving = layouts(gm.graph)
    read = [n for n in gm.graph.find_nodes(op="placeholder") if any(u.target is not aten.sym_size.int for u in n.users)]
    inputs = [n for n in read if is_tensor(n)]
    return {n for n in inputs if any(symbols(stride) & moving for stride in n.meta["val"].stride())}


def _is_contiguous(value: torch.Tensor) -> bool:
    """Whether ``value`` is contiguous in this call. Asking the tensor would add a guard."""
    sizes, strides = _hints(value.shape), _hints(value.stride())
    return all(size == 1 or own == wanted for size, own, wanted in zip(sizes, strides, _contiguous(sizes), strict=True))


def _order(value: torch.Tensor, is_copied: bool) -> list[int]:
    """The dims of ``value`` from the outermost to the innermost; their own order if it is not copied, or repeats rows."""
    sizes, strides, dims = _hints(value.shape), _hints(value.stride()), list(range(value.dim()))
    if not is_copied or any(size != 1 and stride == 0 for size, stride in zip(sizes, strides, strict=True)):
        return dims
    return sorted(dims, key=strides.__getitem__, reverse=True)


def _is_small(value: torch.Tensor) -> bool:
    return math.prod(_hints(value.shape)) <= MOST_ELEMENTS


def _hints(numbers: Sequence[Any]) -> list[int]:
    return [hint(number) or 0 for number in numbers]


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides))
