"""The buffers behind what grows: filled before a call, and what was joined taken out of them after it.

    past is what the last call returned, and nobody has written to it        the buffer holds it: nothing is read
    anything else                                                            copied into the buffer
    result                                                                   a tensor of its own, copied out of the buffer

All copies of a call are one. A capacity is a power of two, so a series of length n meets log2(n) of them.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import NotGrowing
from fxpass.graph.numbers import symbols
from fxpass.kernels.filling import fill_at_once
from fxpass.rewriting.around import Around, Axis
from fxpass.torch_internals.dynamo.capacity import Conditions

LEAST = 64
"""The smallest capacity."""
RECENT = 16
"""From one of so many calls before, a call may go on."""
STRANGERS = 4
"""So many calls one after the other may go on from none."""


def room_for(length: int, least: int = 0) -> int:
    """The capacity of a buffer that is to hold ``length`` rows, and room beside: at ``least`` so many, `LEAST` for 0."""
    return max(least or LEAST, 1 << length.bit_length())


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a buffer holds: the tensor that was copied out of it, as it was then."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    address: int

    @staticmethod
    def of(tensor: torch.Tensor) -> _Held | None:
        """None where nobody counts what is written to ``tensor``."""
        return None if tensor.is_inference() else _Held(weakref.ref(tensor), tensor._version, tensor.data_ptr())

    def is_still(self, tensor: torch.Tensor) -> bool:
        """Whether it is what has come in again, as it was."""
        held = self.tensor()
        return held is not None and held is tensor and (held._version, held.data_ptr()) == (self.version, self.address)


class Growth(threading.local):
    """The buffers ``around`` a graph, each thread's own; ``nodes`` are their placeholders, and others that it gives.

    ``conditions`` are those that a capacity must meet, which is at ``least`` so large. Buffers that are made are ``told``.
    Without ``gives_up``, what does not grow is copied in and out all the same: where there is no other way to run the graph.
    ``at_once`` a kernel of our own fills all of it, where there is one for that.
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
        self._buffers: list[torch.Tensor] = []
        self._held: list[_Held | None] = [None] * len(self.axes)
        self._copies: list[torch.Tensor] = []
        self._numbers: torch.Tensor | None = None
        self._capacity = 0
        self._lengths: list[int] = []
        self._cuts: dict[int, list[tuple[int, int]]] = {}
        self._recent: collections.deque[list[int]] = collections.deque(maxlen=RECENT)
        self._strangers = 0
        self._step: list[int] = [0] * len(self.axes)

    def under(self, conditions: Conditions, least: int, told: Callable[[Sequence[torch.Tensor]], None]) -> Growth:
        """The same under ``conditions``, at ``least`` so large; buffers are ``told``."""
        return Growth(self.around, self._nodes, conditions, self._gives_up, least, told, self._at_once)

    @property
    def capacities(self) -> set[Any]:
        """The symbols of the buffers' sizes along what grows."""
        sizes = [node.meta["val"].shape[one.dim] for one, node in zip(self.axes, self._nodes, strict=False)]
        return {symbol for size in sizes for symbol in symbols(size)}

    @property
    def is_joined(self) -> bool:
        """Whether rows are added to what grows in the graph itself."""
        return any(one.rows != 0 for one in self.axes)

    def fill(self, args: Sequence[Any]) -> list[torch.Tensor]:
        """The buffers, which hold what grows in ``args``, and what holds the numbers."""
        if not self.axes:
            return []
        given = [args[one.place] for one in self.axes]
        self._look_at([t.shape[one.dim] for one, t in zip(self.axes, given, strict=True)])
        self._lengths = [_end(one, args) for one in self.axes]
        self._cuts = {i: [(dim, length.value(args)) for dim, length in cuts] for i, cuts in self.around.cuts.items()}
        self._recent.appendleft(self._lengths)
        stale = [i for i, t in enumerate(given) if (held := self._held[i]) is None or not held.is_still(t)]
        length = max(self._lengths)
        if length >= self._capacity or not all(self._fits(i, given[i]) for i in stale):
            self._allocate(given, max(room_for(length, self._least), self._capacity))
            stale = list(range(len(given)))
        self._held = [None] * len(given)
        copied = [args[i] for i in self.around.copies]
        if [(t.shape, t.dtype) for t in copied] != [(t.shape, t.dtype) for t in self._copies]:
            self._copies = [_memory(t, list(t.shape)) for t in copied]
        if self._numbers is None:
            self._numbers = _memory(torch.empty(0, dtype=torch.int64, device=given[0].device), [len(self.around.numbers)])
        dims = [self.axes[i].dim for i in stale]
        self._put([self._buffers[i] for i in stale], [given[i] for i in stale], dims, copied, args)
        return [*self._buffers, *self._copies, *([self._numbers] if self.around.numbers else [])]

    def _put(
        self, buffers: list[torch.Tensor], given: list[torch.Tensor], dims: list[int], copied: list[Any], args: Sequence[Any]
    ) -> None:
        """Copy what is ``given`` into ``buffers``, and put what is ``copied``, and the numbers, into theirs."""
        assert self._numbers is not None
        values = [one.value(args) for one in self.around.numbers]
        every, into = [*given, *copied], [*buffers, *self._copies]
        if self._at_once and fill_at_once(into, every, [*dims, *[0] * len(copied)], self._numbers, values):
            return
        rows = [buffer.narrow(d, 0, t.shape[d]) for buffer, t, d in zip(buffers, given, dims, strict=True)]
        if every:
            _copy([*rows, *self._copies], every)
        if values:  # from memory that is not pinned: it is read before this returns
            self._numbers.copy_(torch.tensor(values), non_blocking=True)

    def take_out(self, results: list[Any]) -> None:
        """Put what was joined in the place of the buffers among ``results``."""
        taken = [(i, one, b) for i, (one, b) in enumerate(zip(self.axes, self._buffers, strict=True)) if one.results]
        parts = [buffer.narrow(one.dim, 0, self._lengths[i]) for i, one, buffer in taken]
        made = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in parts]
        if made:
            _copy(made, parts)
        for place, cuts in self._cuts.items():
            if place in self.around.dense:
                results[place] = self.around.dense[place].of(results[place], cuts[0][1])
                continue
            for dim, length in cuts:
                results[place] = results[place].narrow(dim, 0, length)
            order = self.around.orders.get(place, range(results[place].dim()))
            own = results[place].permute(*order).clone(memory_format=torch.contiguous_format)
            results[place] = own.permute([order.index(d) for d in range(own.dim())]) if place in self.around.orders else own
        for (i, one, _), tensor in zip(taken, made, strict=True):
            tensor = tensor.view_as(tensor) if one.views else tensor
            self._held[i] = _Held.of(tensor)
            for place in one.results:
                results[place] = tensor
        for place, part in self.around.slices.items():
            results[place] = part.of(results)

    def _look_at(self, given: list[int]) -> None:
        """See whether one of the latest calls has made what is as long as that which is ``given``.

        Raises:
            NotGrowing: that has not been so for a while.
        """
        if self._goes_on(given):
            self._strangers = 0
        elif not self._is_longer(given):
            self._strangers += 1
        if self._strangers > STRANGERS and self._gives_up:
            self._buffers, self._capacity = [], 0
            raise NotGrowing(reasons.NOT_GROWING, calls=STRANGERS)

    def _goes_on(self, given: list[int]) -> bool:
        """Whether what is joined was made by one of the latest calls; of a series, whether it is longer than at one of them, by
        as much as it was the last time."""
        joined = [i for i, one in enumerate(self.axes) if one.rows != 0]
        if joined:
            return any(all(given[i] == made[i] for i in joined) for made in self._recent)
        return any(all(s > 0 and g - m == s for g, m, s in zip(given, made, self._step, strict=True)) for made in self._recent)

    def _is_longer(self, given: list[int]) -> bool:
        """Whether this is a series that is longer than at the last call, by whatever."""
        if self.is_joined or not self._recent:
            return False
        self._step = [g - made for g, made in zip(given, self._recent[0], strict=True)]
        return all(s > 0 for s in self._step)

    def _fits(self, i: int, given: torch.Tensor) -> bool:
        """Whether ``given`` has the sizes of the buffer ``i``, but for what grows."""
        dim, whole, part = self.axes[i].dim, self._buffers[i].shape, given.shape
        return whole[:dim] == part[:dim] and whole[dim + 1 :] == part[dim + 1 :]

    def _allocate(self, given: Sequence[torch.Tensor], capacity: int) -> None:
        """Make buffers of ``capacity`` for tensors like those ``given``.

        Raises:
            NotGrowing: what was compiled does not hold for it.
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


def _end(one: Axis, args: Sequence[Any]) -> int:
    rows = one.rows if isinstance(one.rows, int) else args[one.rows[0]].shape[one.rows[1]]
    return args[one.place].shape[one.dim] + rows


def _copy(into: list[torch.Tensor], given: list[torch.Tensor]) -> None:
    with torch.no_grad():
        torch.ops.aten._foreach_copy_.default(into, given)
