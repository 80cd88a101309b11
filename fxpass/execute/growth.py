"""The buffers behind what grows: filled before a call, and what was joined taken out of them after it.

    past is what the last call returned, and nobody has written to it        the buffer holds it: nothing is read
    anything else                                                            copied into the buffer
    result                                                                   a tensor of its own, copied out of the buffer

All copies of a call are one. A capacity is a power of two, so a series of length n meets log2(n) of them. See also `buffers`.
"""

from __future__ import annotations

import collections
import operator
import threading
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

from .buffers import Buffer, memory, owner_of, shared
from .recording.copying import copy_into

LEAST = 64
"""The smallest capacity."""
RECENT = 16
"""From one of so many calls before, a call may go on."""
STRANGERS = 4
"""So many calls one after the other may go on from none."""


def room_for(length: int, least: int = 0) -> int:
    """The capacity of a buffer that is to hold ``length`` rows, and room beside: at ``least`` so many, `LEAST` for 0."""
    return max(least or LEAST, 1 << length.bit_length())


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
        self._given, self._copied = values_at([one.place for one in self.axes]), values_at(self.around.copies)
        self._measured = function_of(*_measures(self.around))
        self._joined = [i for i, one in enumerate(self.axes) if one.rows != 0]
        self._of_joined = values_at(self._joined)
        self._taken = [i for i, one in enumerate(self.axes) if one.results]
        self._owner = owner_of(nodes)
        self._buffers: list[Buffer] = []
        self._copies: list[torch.Tensor] = []
        self._shapes: list[torch.Size] = []
        self._numbers: torch.Tensor | None = None
        self._capacity = 0
        self._lengths: tuple[int, ...] = ()
        self._cuts: tuple[tuple[int, ...], ...] = ()
        self._recent: collections.deque[tuple[int, ...]] = collections.deque(maxlen=RECENT)
        self._strangers = 0
        self._step = (0,) * len(self.axes)

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
        """Whether rows are added in the graph itself."""
        return bool(self._joined)

    def fill(self, args: Sequence[Any]) -> list[torch.Tensor]:
        """The buffers, which hold what grows in ``args``, and what holds the numbers."""
        if not self.axes:
            return []
        given, copied = self._given(args), self._copied(args)
        sizes, self._lengths, self._cuts, numbers = self._measured(args)
        self._look_at(sizes, given)
        self._recent.appendleft(self._of_joined(self._lengths) if self._joined else sizes)
        stale = self._stale(given)
        if not self._buffers or max(self._lengths) >= self._capacity or not self._fit(stale, given):
            self._allocate(given, None if self._owner is None else args[self._owner])
            stale = self._stale(given)
        for buffer in self._buffers:
            buffer.held = None
        memories = self._memories()
        if self._numbers is None or [t.shape for t in copied] != self._shapes:
            self._copies, self._shapes = [memory(t, list(t.shape)) for t in copied], [t.shape for t in copied]
            self._numbers = memory(torch.empty(0, dtype=torch.int64, device=given[0].device), [len(numbers)])
        dims = [self.axes[i].dim for i in stale]
        self._put([memories[i] for i in stale], [given[i] for i in stale], dims, copied, numbers)
        return [*memories, *self._copies, *([self._numbers] if numbers else [])]

    def _memories(self) -> list[torch.Tensor]:
        return [buffer.memory for buffer in self._buffers]  # type: ignore[misc]

    def _stale(self, given: Sequence[torch.Tensor]) -> list[int]:
        """The places of what is ``given`` and no buffer holds."""
        return [i for i, buffer in enumerate(self._buffers) if not buffer.holds(given[i])]

    def _put(
        self,
        buffers: Sequence[torch.Tensor],
        given: Sequence[torch.Tensor],
        dims: Sequence[int],
        copied: Sequence[torch.Tensor],
        numbers: Sequence[int],
    ) -> None:
        """Copy what is ``given`` into ``buffers``, and put what is ``copied``, and the ``numbers``, into theirs."""
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
        """Put what was joined in the place of the buffers among ``results``."""
        memories = self._memories()
        parts = [memories[i].narrow(self.axes[i].dim, 0, self._lengths[i]) for i in self._taken]
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
            self._buffers[i].gives(tensor)
            for place in one.results:
                results[place] = tensor
        for place, part in self.around.slices.items():
            results[place] = part.of(results)

    def _look_at(self, sizes: tuple[int, ...], given: Sequence[torch.Tensor]) -> None:
        """See whether one of the latest calls has made what has these ``sizes`` along what grows, or is ``given`` a part of it.

        Raises:
            NotGrowing: that has not been so for a while.
        """
        if self._goes_on(sizes) or self._is_part(given):
            self._strangers = 0
        elif not self._is_longer(sizes):
            self._strangers += 1
        if self._strangers > STRANGERS and self._gives_up:
            self._buffers = []
            raise NotGrowing(reasons.NOT_GROWING, calls=STRANGERS)

    def _goes_on(self, sizes: tuple[int, ...]) -> bool:
        """Whether what is joined was made by one of the latest calls; of a series, whether it is longer than at one of them, by
        as much as it was the last time."""
        if self._joined:
            return self._of_joined(sizes) in self._recent
        return min(self._step) > 0 and tuple(map(operator.sub, sizes, self._step)) in self._recent

    def _is_part(self, given: Sequence[torch.Tensor]) -> bool:
        """Whether what is joined lies where the last call, of any graph of the model, has left it: it may be cropped."""
        joined = self._joined if self._buffers else ()
        return any(self._buffers[i].left == given[i].untyped_storage().data_ptr() for i in joined)

    def _is_longer(self, sizes: tuple[int, ...]) -> bool:
        """Whether this is a series that is longer than at the last call, by whatever."""
        if self._joined or not self._recent:
            return False
        self._step = tuple(map(operator.sub, sizes, self._recent[0]))
        return min(self._step) > 0

    def _fit(self, places: Sequence[int], given: Sequence[torch.Tensor]) -> bool:
        """Whether no other graph has made a buffer larger, and what is ``given`` at these ``places`` has the sizes of its
        buffer, but for what grows."""
        if any(buffer.capacity != self._capacity for buffer in self._buffers):
            return False
        for i in places:
            dim, whole, part = self.axes[i].dim, self._buffers[i].memory.shape, given[i].shape  # type: ignore[union-attr]
            if whole[:dim] != part[:dim] or whole[dim + 1 :] != part[dim + 1 :]:
                return False
        return True

    def _allocate(self, given: Sequence[torch.Tensor], owner: torch.Tensor | None) -> None:
        """Have buffers for tensors like those ``given``, of a model whose first parameter is ``owner``.

        Raises:
            NotGrowing: what was compiled does not hold for their capacity.
        """
        made = [shared(owner, i, one.dim, like) for i, (one, like) in enumerate(zip(self.axes, given, strict=True))]
        capacity = max(room_for(max(self._lengths), self._least), self._capacity, *(buffer.capacity for buffer in made))
        if self.conditions is not None and not self.conditions.hold(capacity):
            raise NotGrowing(reasons.CAPACITY, capacity=capacity)
        self._buffers, self._capacity = made, capacity
        small = [i for i, buffer in enumerate(made) if buffer.capacity != capacity]
        for i in small:
            made[i].let_go()
        for i in small:
            dim, shape = self.axes[i].dim, given[i].shape
            made[i].memory, made[i].capacity = memory(given[i], [*shape[:dim], capacity, *shape[dim + 1 :]]), capacity
        self._told(self._memories())


def _measures(around: Around) -> tuple[tuple[Any, ...], ...]:
    """The formulas of what a call asks: sizes along what grows, and what they are after it; lengths of cuts; numbers."""
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
