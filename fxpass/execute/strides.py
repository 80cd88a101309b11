"""Inputs whose strides move from call to call: a core sees them with strides that do not.

    x: f32[2, 1, 8], strides (s0, 8, 1)       a row of a longer and longer series      core(x.contiguous())
    k: f32[1, 64, 8], strides (s1, 8, 1)      contiguous but for a dim of size 1       core(k.as_strided(k.shape, (512, 8, 1)))

A small input is copied. A large one, or one that is written to or returned, is only viewed: where it is not contiguous, a core
is compiled for each value of its strides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass.analysis.kinds import layouts
from fxpass.graph import aliases
from fxpass.graph.memory_addresses import memory_address, memory_addresses
from fxpass.graph.numbers import hint, symbols
from fxpass.graph.values import is_tensor

aten = torch.ops.aten

MOST_ELEMENTS = 2**20
"""A larger input is not copied."""


@dataclasses.dataclass(frozen=True)
class Strided:
    """The ``places`` of a graph's inputs with moving strides.

    Those in ``copied`` may be copied, unless they share memory with an input at one of the places ``written``.
    """

    places: Sequence[int]
    copied: Set[int]
    written: Sequence[int]

    @classmethod
    def of(cls, gm: fx.GraphModule) -> Strided:
        """The inputs of ``gm`` with moving strides."""
        inputs, written = gm.graph.find_nodes(op="placeholder"), aliases.written_inputs(gm.graph)
        shown = {aliases.storage(n) for n in (*gm.graph.output_node().all_input_nodes, *written)}
        moving = _moving(gm)
        places = [i for i, n in enumerate(inputs) if n in moving]
        copied = {i for i in places if aliases.storage(inputs[i]) not in shown and _is_small(inputs[i].meta["val"])}
        return cls(places, copied, [i for i, n in enumerate(inputs) if n in written])

    def __call__(self, values: list[Any]) -> None:
        for i in self.places:
            value = values[i]
            if value.is_contiguous():
                values[i] = value.as_strided(value.shape, _contiguous(value.shape))
            elif i in self.copied and not self._is_written(value, values):
                values[i] = value.contiguous()

    def _is_written(self, value: torch.Tensor, values: Sequence[Any]) -> bool:
        return memory_address(value) in memory_addresses(values[i] for i in self.written)


def kept_strides(gm: fx.GraphModule) -> set[Any]:
    """The symbols in strides for each value of which a core of ``gm`` is compiled."""
    strided, inputs = Strided.of(gm), gm.graph.find_nodes(op="placeholder")
    viewed = [v for i in strided.places if i not in strided.copied and not _is_contiguous(v := inputs[i].meta["val"])]
    return {s for value in viewed for stride in value.stride() for s in symbols(stride)} & layouts(gm.graph)


def _moving(gm: fx.GraphModule) -> set[fx.Node]:
    """The inputs whose strides have symbols that are in no size; without inputs of which only a size is read."""
    moving = layouts(gm.graph)
    read = [n for n in gm.graph.find_nodes(op="placeholder") if any(u.target is not aten.sym_size.int for u in n.users)]
    inputs = [n for n in read if is_tensor(n)]
    return {n for n in inputs if any(symbols(stride) & moving for stride in n.meta["val"].stride())}


def _is_contiguous(value: torch.Tensor) -> bool:
    """Whether ``value`` is contiguous in this call. Asking the tensor would add a guard."""
    sizes, strides = _hints(value.shape), _hints(value.stride())
    return all(size == 1 or own == wanted for size, own, wanted in zip(sizes, strides, _contiguous(sizes), strict=True))


def _is_small(value: torch.Tensor) -> bool:
    return math.prod(_hints(value.shape)) <= MOST_ELEMENTS


def _hints(numbers: Sequence[Any]) -> list[int]:
    return [hint(number) or 0 for number in numbers]


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return tuple(reversed(strides))
