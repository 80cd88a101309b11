"""The buffers behind what grows: filled before a call, and what was joined taken out of them after it.

    past, the tensor that the last call returned, unwritten since        The buffer holds it, and nothing is copied.
    any other tensor                                                     It is copied into the buffer.
    result                                                               It is a tensor of its own, copied out of the buffer.

All copies of a call are made at once. A capacity is a power of two, so a series of length n meets log2(n) of them.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.errors import NotGrowing
from fxpass.execute.recording.copying import copy_into
from fxpass.graph.arguments import values_at
from fxpass.graph.numbers import symbols
from fxpass.kernels.writes.fill_buffers import FillAtOnce
from fxpass.rewriting.outside.around import Around
from fxpass.rewriting.outside.formulas import Formula, Size, function_of
from fxpass.torch_internals.dynamo.sizes.capacity import Conditions

from .recent_calls import STRANGERS, RecentCalls
from .shared_buffers import Buffer, Numbers, owner_of, shared, zeroed_memory
from .windows import WindowRows, window_sizes
from .written_beside import WrittenBeside

LEAST = 64
"""The smallest capacity."""


def room_for(length: int, least: int = 0) -> int:
    """The capacity of a buffer for more than ``length`` rows: a power of two, at least ``least`` (`LEAST` if 0)."""
    return max(least or LEAST, 1 << length.bit_length())


class Growth(threading.local):
    """The buffers and windows ``around`` a graph. Each thread has its own.

    nodes: the placeholders of the graph that this gives values to, those of the buffers first, then those of the windows.
    conditions: what a capacity must meet for the compiled graph to hold.
    gives_up: whether `fill` may raise an error where nothing has grown for a while. If not, all is copied in and out on each
        call, since there is no other way to run the graph.
    least: the smallest capacity.
    told: is called with the buffers when they have been made.
    at_once: whether one kernel of our own fills all buffers, if it is written for them.
    window_sizes: see `windows.window_sizes`.
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
        self._windows = WindowRows(self.around.windows)
        self.window_sizes = window_sizes(self._nodes[len(self.axes) :], self.around.windows)
        self._given, self._copied = values_at([one.place for one in self.axes]), values_at(self.around.copies)
        self._written = WrittenBeside(self._nodes)
        self._measured = function_of(*_measures(self.around))
        self._calls = RecentCalls(len(self.axes), [i for i, one in enumerate(self.axes) if one.rows != 0])
        self._dims = [one.dim for one in self.axes]
        self._taken = [i for i, one in enumerate(self.axes) if one.results]
        self._owner = owner_of(nodes)
        self._open = [i for i, one in enumerate(self.axes) if i >= len(nodes) or _moves_otherwise(nodes[i], one.dim)]
        self._buffers: list[Buffer] = []
        self._copies: list[torch.Tensor] = []
        self._shapes: list[torch.Size] = []
        self._numbers: Numbers | None = None
        self._fills: dict[tuple[int, ...], FillAtOnce] = {}
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
    def moves_on(self) -> bool:
        """Whether the next calls bring other sizes: rows are added to what grows in the graph itself, or there are windows."""
        return bool(self._calls.joined or self.around.windows)

    def fill(self, args: Sequence[Any], in_part: bool = True) -> list[torch.Tensor]:
        """The values of the graph's last inputs, filled from ``args``: buffers, windows, copies of inputs, and all numbers.
        Windows are of caches ``in_part``, or of all rows.

        Raises:
            NotGrowing: nothing has grown for a while, the compiled graph does not hold for the capacity that is needed, or it
                writes to the memory of what grows.
        """
        windows = self._windows(args, in_part) if self.around.windows else []
        if not self.axes:
            self._cuts = self._measured(args)[2] if self.around.cuts else ()
            return windows
        given, copied = self._given(args), self._copied(args)
        if self._written.places and self._written.share(args, given):
            raise NotGrowing(reasons.WRITTEN_BESIDE, not self._taken)
        sizes, self._lengths, self._cuts, numbers = self._measured(args)
        if self._calls.go_on_to(sizes, self._lengths, lambda: self._is_part(given)) > STRANGERS and self._gives_up:
            self._buffers = []
            raise NotGrowing(reasons.NOT_GROWING, not self._taken, calls=STRANGERS)
        stale = self._stale(given)
        if not self._buffers or max(self._lengths) >= self._capacity or not self._fit(stale, given):
            self._allocate(given, None if self._owner is None else args[self._owner])
            stale = self._stale(given)
        for buffer in self._buffers:
            buffer.held = None
        memories = self._memories()
        if self._numbers is None or [t.shape for t in copied] != self._shapes:
            self._copies, self._shapes = [zeroed_memory(t, list(t.shape)) for t in copied], [t.shape for t in copied]
            self._numbers, self._fills = Numbers(len(numbers), given[0].device), {}
        self._put([memories[i] for i in stale], [*[given[i] for i in stale], *copied], stale, numbers)
        return [*memories, *windows, *self._copies, *([self._numbers.tensor] if numbers else [])]

    def _memories(self) -> list[torch.Tensor]:
        return [buffer.memory for buffer in self._buffers]  # type: ignore[misc]

    def _stale(self, given: Sequence[torch.Tensor]) -> list[int]:
        """The places of the tensors ``given`` that no buffer holds."""
        held = enumerate(buffer.held for buffer in self._buffers)
        return [i for i, one in held if one is None or not one.is_still(given[i])]

    def _is_part(self, given: Sequence[torch.Tensor]) -> bool:
        """Whether a tensor that is joined lies in the memory of what the last call returned, of any graph of the model. It may
        have been cropped."""
        joined = self._calls.joined if self._buffers else ()
        return any(self._buffers[i].has_left(given[i]) for i in joined)

    def _put(
        self, buffers: Sequence[torch.Tensor], given: list[torch.Tensor], places: Sequence[int], numbers: Sequence[int]
    ) -> None:
        """Copy ``given`` into ``buffers``, those of the axes at ``places``, and what is left of it and ``numbers`` into the
        memory that there is for them."""
        assert self._numbers is not None
        if self._at_once:
            into = [*buffers, *self._copies]
            if (fill := self._fills.get(key := tuple(places))) is None:
                dims = [*[self._dims[i] for i in places], *[0] * len(self._copies)]
                fill = self._fills[key] = FillAtOnce(into, dims, self._numbers.tensor)
            if fill(into, given, numbers):
                return
        if given:  # the first rows of a buffer: a slice of it would take twice as long to make
            rows = [torch.as_strided(b, t.shape, b.stride()) for b, t in zip(buffers, given, strict=False)]
            copy_into([*rows, *self._copies], given)
        self._numbers.put(numbers)

    def take_out(self, results: list[Any]) -> None:
        """Replace each buffer among ``results`` by the rows that it holds, and cut each result that is too long."""
        made: list[torch.Tensor] = []
        if self._taken:
            memories = self._memories()
            parts = [memories[i].narrow(self._dims[i], 0, self._lengths[i]) for i in self._taken]
            made = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in parts]
            copy_into(made, parts)
        for place, lengths in zip(self.around.cuts, self._cuts, strict=True):
            if place in self.around.dense:
                results[place] = self.around.dense[place].of(results[place], lengths[0])
                continue
            results[place] = self.around.cut(place, results[place], lengths)
        for i, tensor in zip(self._taken, made, strict=True):
            one = self.axes[i]
            tensor = tensor.view_as(tensor) if one.views else tensor
            self._buffers[i].gives(tensor)
            for place in one.results:
                results[place] = tensor
        if viewed := self.around.viewed:
            for place, view in [(place, one.of(results)) for place, one in viewed.items()]:
                results[place] = view

    def _fit(self, places: Sequence[int], given: Sequence[torch.Tensor]) -> bool:
        """Whether no other graph has made a buffer larger, and each tensor ``given`` at ``places`` has the sizes of its buffer,
        in all dims but the one that grows. Most have no other size, by Dynamo's guards."""
        for buffer in self._buffers:
            if buffer.capacity != self._capacity:
                return False
        for i in self._open:
            if i not in places:
                continue
            dim, whole, part = self._dims[i], self._buffers[i].memory.shape, given[i].shape  # type: ignore[union-attr]
            if whole[:dim] != part[:dim] or whole[dim + 1 :] != part[dim + 1 :]:
                return False
        return True

    def _allocate(self, given: Sequence[torch.Tensor], owner: torch.Tensor | None) -> None:
        """Get buffers for tensors like those ``given``, of a model whose first parameter is ``owner``.

        Raises:
            NotGrowing: the compiled graph does not hold for their capacity.
        """
        made = [shared(owner, i, dim, like) for i, (dim, like) in enumerate(zip(self._dims, given, strict=True))]
        capacity = max(room_for(max(self._lengths), self._least), self._capacity, *(buffer.capacity for buffer in made))
        if self.conditions is not None and not self.conditions.hold(capacity):
            raise NotGrowing(reasons.CAPACITY, not self._taken, capacity=capacity)
        self._buffers, self._capacity, self._fills = made, capacity, {}
        small = [i for i, buffer in enumerate(made) if buffer.capacity != capacity]
        for i in small:
            made[i].let_go()
        for i in small:
            dim, shape = self._dims[i], given[i].shape
            made[i].memory, made[i].capacity = zeroed_memory(given[i], [*shape[:dim], capacity, *shape[dim + 1 :]]), capacity
        self._told(self._memories())


def _measures(around: Around) -> tuple[tuple[Any, ...], ...]:
    """The formulas that each call works out: sizes along what grows, before and after the call; lengths of cuts; numbers."""
    sizes = tuple(Size(one.place, one.dim) for one in around.axes)
    rows = [one.rows if isinstance(one.rows, int) else Size(*one.rows) for one in around.axes]
    ends = tuple(Formula(operator.add, pair) if pair[1] != 0 else pair[0] for pair in zip(sizes, rows, strict=True))
    cuts = tuple(tuple(length for _, length in cuts) for cuts in around.cuts.values())
    return sizes, ends, cuts, tuple(around.numbers)


def _moves_otherwise(buffer: fx.Node, dim: int) -> bool:
    """Whether the placeholder ``buffer`` has a size that is a symbol, or not known, along another dim than ``dim``."""
    fake = buffer.meta.get("val")
    return fake is None or any(isinstance(size, torch.SymInt) for d, size in enumerate(fake.shape) if d != dim)
