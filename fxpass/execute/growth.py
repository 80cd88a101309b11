"""The buffers behind what grows: filled before a call, and what was joined taken out of them after it.

    past is what the last call returned, and nobody has written to it        the buffer holds it: nothing is read
    anything else                                                            copied into the buffer
    result                                                                   a tensor of its own, copied out of the buffer

All copies of a call are one. A capacity is a power of two, so a series of length n meets log2(n) of them.
"""

from __future__ import annotations

import dataclasses
import operator
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import NotGrowing
from fxpass.graph.arguments import values_at
from fxpass.graph.numbers import symbols
from fxpass.kernels.filling import fill_at_once
from fxpass.rewriting.around import Around
from fxpass.rewriting.formulas import Formula, Size, function_of
from fxpass.torch_internals.dynamo.capacity import Conditions

from .recent_calls import STRANGERS, RecentCalls
from .recording.copying import copy_into

LEAST = 64
"""The smallest capacity."""


def room_for(length: int, least: int = 0) -> int:
    """The capacity of a buffer for more than ``length`` rows: a power of two, at least ``least`` (`LEAST` if 0)."""
    return max(least or LEAST, 1 << length.bit_length())


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a buffer holds: the same as a tensor that was copied out of it, as long as nobody writes to that tensor."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    address: int

    @staticmethod
    def of(tensor: torch.Tensor) -> _Held | None:
        """None for an inference tensor: it has no version counter, so that writes to it are not seen."""
        return None if tensor.is_inference() else _Held(weakref.ref(tensor), tensor._version, tensor.data_ptr())

    def is_still(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` is that tensor, and nobody has written to it since."""
        held = self.tensor()
        return held is not None and held is tensor and (held._version, held.data_ptr()) == (self.version, self.address)


class Growth(threading.local):
    """The buffers ``around`` a graph. Each thread has its own.

    nodes: the placeholders of the graph that this gives values to, those of the buffers first.
    conditions: what a capacity must meet for the compiled graph to hold.
    gives_up: whether `fill` may raise where nothing has grown for a while. If not, all is copied in and out on each call: there
        is no other way to run the graph.
    least: the smallest capacity.
    told: is called with the buffers when they have been made.
    at_once: whether one kernel of our own fills all buffers, if it is written for them.
    """

    def __init__(
        self,
        around: Around | None = None,
        nodes: Sequence[fx.Node] = (),
        conditions: Conditions | None = None,
        gives_up: bool = True,
        least: int = 0,
        told: Callable[[Sequence[torch.Tensor]], None] = lambda buffers: None,
        at_once: bool = False,
    ) -> None:
        self.around, self.conditions, self._gives_up = around or Around(), conditions, gives_up
        self._least, self._told, self._at_once = least, told, at_once
        self.axes = self.around.axes
        self._nodes = list(nodes)
        self._given, self._copied = values_at([one.place for one in self.axes]), values_at(self.around.copies)
        self._measured = function_of(*_measures(self.around))
        self._calls = RecentCalls(len(self.axes), [i for i, one in enumerate(self.axes) if one.rows != 0])
        self._dims = [one.dim for one in self.axes]
        self._taken = [i for i, one in enumerate(self.axes) if one.results]
        self._buffers: list[torch.Tensor] = []
        self._held: list[_Held | None] = [None] * len(self.axes)
        self._copies: list[torch.Tensor] = []
        self._shapes: list[torch.Size] = []
        self._numbers: torch.Tensor | None = None
        self._capacity = 0
        self._lengths: tuple[int, ...] = ()
        self._cuts: tuple[tuple[int, ...], ...] = ()

    def under(self, conditions: Conditions, least: int, told: Callable[[Sequence[torch.Tensor]], None]) -> Growth:
        """The same with other ``conditions``, ``least`` and ``told``."""
        return Growth(self.around, self._nodes, conditions, self._gives_up, least, told, self._at_once)

    @property
    def capacities(self) -> set[Any]:
        """The symbols of the buffers' sizes along what grows."""
        sizes = [node.meta["val"].shape[one.dim] for one, node in zip(self.axes, self._nodes, strict=False)]
        return {symbol for size in sizes for symbol in symbols(size)}

    @property
    def is_joined(self) -> bool:
        """Whether rows are added to what grows in the graph itself."""
        return bool(self._calls.joined)

    def fill(self, args: Sequence[Any]) -> list[torch.Tensor]:
        """The values of the graph's last inputs, filled from ``args``: buffers, copies of inputs, and the tensor of numbers.

        Raises:
            NotGrowing: nothing has grown for a while, or the compiled graph does not hold for the capacity that is needed.
        """
        if not self.axes:
            return []
        given, copied = self._given(args), self._copied(args)
        sizes, self._lengths, self._cuts, numbers = self._measured(args)
        if self._calls.go_on_to(sizes, self._lengths) > STRANGERS and self._gives_up:
            self._buffers, self._capacity = [], 0
            raise NotGrowing(reasons.NOT_GROWING, calls=STRANGERS)
        stale = [i for i, held in enumerate(self._held) if held is None or not held.is_still(given[i])]
        length = max(self._lengths)
        if length >= self._capacity or not self._fit(stale, given):
            self._allocate(given, max(room_for(length, self._least), self._capacity))
            stale = list(range(len(given)))
        self._held = [None] * len(given)
        if self._numbers is None or [t.shape for t in copied] != self._shapes:
            self._copies, self._shapes = [_memory(t, list(t.shape)) for t in copied], [t.shape for t in copied]
            self._numbers = _memory(torch.empty(0, dtype=torch.int64, device=given[0].device), [len(numbers)])
        if len(stale) == len(given):
            self._put(self._buffers, given, self._dims, copied, numbers)
        else:
            dims = [self._dims[i] for i in stale]
            self._put([self._buffers[i] for i in stale], [given[i] for i in stale], dims, copied, numbers)
        return [*self._buffers, *self._copies, *([self._numbers] if numbers else [])]

    def _put(
        self,
        buffers: Sequence[torch.Tensor],
        given: Sequence[torch.Tensor],
        dims: Sequence[int],
        copied: Sequence[torch.Tensor],
        numbers: Sequence[int],
    ) -> None:
        """Copy ``given`` into ``buffers``, and ``copied`` and ``numbers`` into the memory that there is for them."""
        assert self._numbers is not None
        every, into = [*given, *copied], [*buffers, *self._copies]
        if self._at_once and fill_at_once(into, every, [*dims, *[0] * len(copied)], self._numbers, numbers):
            return
        rows = [buffer.narrow(d, 0, t.size(d)) for buffer, t, d in zip(buffers, given, dims, strict=True)]
        if every:
            copy_into([*rows, *self._copies], every)
        if len(numbers) == 1:
            self._numbers.fill_(numbers[0])
        elif numbers:  # from memory that is not pinned: it is read before this returns
            self._numbers.copy_(torch.tensor(numbers), non_blocking=True)

    def take_out(self, results: list[Any]) -> None:
        """Replace each buffer among ``results`` by the rows that it holds, and cut each result that is too long."""
        parts = [self._buffers[i].narrow(self.axes[i].dim, 0, self._lengths[i]) for i in self._taken]
        made = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in parts]
        if made:
            copy_into(made, parts)
        for (place, cuts), lengths in zip(self.around.cuts.items(), self._cuts, strict=True):
            if place in self.around.dense:
                results[place] = self.around.dense[place].of(results[place], lengths[0])
                continue
            for (dim, _), length in zip(cuts, lengths, strict=True):
                results[place] = results[place].narrow(dim, 0, length)
            results[place] = _ordered(results[place], self.around.orders.get(place))
        for i, tensor in zip(self._taken, made, strict=True):
            one = self.axes[i]
            tensor = tensor.view_as(tensor) if one.views else tensor
            self._held[i] = _Held.of(tensor)
            for place in one.results:
                results[place] = tensor
        for place, part in self.around.slices.items():
            results[place] = part.of(results)

    def _fit(self, places: Sequence[int], given: Sequence[torch.Tensor]) -> bool:
        """Whether each tensor ``given`` at ``places`` has the sizes of its buffer, in all dims but the one that grows."""
        for i in places:
            dim, whole, part = self._dims[i], self._buffers[i].shape, given[i].shape
            if whole[:dim] != part[:dim] or whole[dim + 1 :] != part[dim + 1 :]:
                return False
        return True

    def _allocate(self, given: Sequence[torch.Tensor], capacity: int) -> None:
        """Make buffers of ``capacity`` for tensors like those ``given``.

        Raises:
            NotGrowing: the compiled graph does not hold for ``capacity``.
        """
        if self.conditions is not None and not self.conditions.hold(capacity):
            raise NotGrowing(reasons.CAPACITY, capacity=capacity)
        self._buffers, self._capacity = [], capacity
        for one, like in zip(self.axes, given, strict=True):
            self._buffers.append(_memory(like, [*like.shape[: one.dim], capacity, *like.shape[one.dim + 1 :]]))
        self._told(self._buffers)


def _memory(like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A tensor of ``shape`` that is ``like`` another one, and can be written in any grad mode."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=like.dtype, device=like.device)


def _measures(around: Around) -> tuple[tuple[Any, ...], ...]:
    """The formulas that each call works out: sizes along what grows, before and after the call; lengths of cuts; numbers."""
    sizes = tuple(Size(one.place, one.dim) for one in around.axes)
    rows = [one.rows if isinstance(one.rows, int) else Size(*one.rows) for one in around.axes]
    ends = tuple(Formula(operator.add, pair) if pair[1] != 0 else pair[0] for pair in zip(sizes, rows, strict=True))
    cuts = tuple(tuple(length for _, length in cuts) for cuts in around.cuts.values())
    return sizes, ends, cuts, tuple(around.numbers)


def _ordered(part: torch.Tensor, order: tuple[int, ...] | None) -> torch.Tensor:
    """A copy of ``part`` whose dims lie in this ``order`` in memory; contiguous without one."""
    if order is None:
        return part.clone(memory_format=torch.contiguous_format)
    own = part.permute(*order).clone(memory_format=torch.contiguous_format)
    return own.permute([order.index(d) for d in range(own.dim())])
