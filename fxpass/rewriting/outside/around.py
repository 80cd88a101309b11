"""What has to be done around a graph whose inputs grow, or whose caches are read through windows.

It is plain data, which can be kept for another process.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .result_layout import undone
from .viewed_results import ViewOf


@dataclasses.dataclass(frozen=True)
class Axis:
    """One input that grows.

    place: which of the graph's inputs it is.
    dim: along which it grows.
    rows: the number of rows that a call adds: an int, or the input and the dim whose size it is.
    results: the graph's results that are the joined tensor.
    views: those of them that are views of the joined tensor, such as `joined[:, -8:]`. Dynamo tells a view from a tensor that
        has memory of its own.
    """

    place: int
    dim: int
    rows: int | tuple[int, int]
    results: tuple[int, ...]
    views: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dense:
    """The ``number``-th of several results, which stand one after the other at the beginning of a flat tensor.

    ``before`` and ``after`` are its sizes before and after the dim along which it is cut.
    """

    number: int
    before: tuple[int, ...]
    after: tuple[int, ...]

    def of(self, flat: torch.Tensor, length: int) -> torch.Tensor:
        """The result, cut to ``length``. It shares the memory of ``flat``, but not its version counter."""
        shape = (*self.before, length, *self.after)
        size = math.prod(shape)
        start = self.number * size
        return torch.unsafe_split_with_sizes(flat, [start, size, flat.numel() - start - size])[1].view(shape)


@dataclasses.dataclass(frozen=True)
class Window:
    """The first rows of axes of ``sizes``, with room for ``length`` (`formulas`)."""

    length: Any
    sizes: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Around:
    """What has to be done around a graph that has buffers, or windows.

    axes: what grows, one for each buffer, in the order of the buffers among the graph's last inputs.
    cuts: for each result that the graph gives at full size, the dims along which it is cut, with the lengths (`formulas`).
    orders: for each of these results that is not contiguous, the order of its dims in memory.
    viewed: the results that the graph does not give, since they are views of others, or of what it gives in their place.
    dense: the results that are cut and leave the graph together, in one flat tensor (`dense`).
    windows: those whose sizes are the sizes of the inputs that follow the buffers.
    copies: the inputs that are copied, each into one of the inputs that follow the windows. These stay at one address.
    numbers: the formulas of the numbers in the last input of the graph, if there are any.
    """

    axes: Sequence[Axis] = ()
    cuts: dict[int, tuple[tuple[int, Any], ...]] = dataclasses.field(default_factory=dict)
    orders: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    viewed: dict[int, ViewOf] = dataclasses.field(default_factory=dict)
    dense: Mapping[int, Dense] = dataclasses.field(default_factory=dict)
    windows: Sequence[Window] = ()
    copies: Sequence[int] = ()
    numbers: Sequence[Any] = ()

    @property
    def inputs(self) -> int:
        """The number of the graph's inputs that its caller does not give."""
        return len(self.axes) + len(self.windows) + len(self.copies) + bool(self.numbers)

    def cut(self, place: int, whole: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """A copy of the result at ``place``, which the graph gives as ``whole``, cut to ``lengths``. It lies in memory as in
        eager."""
        cuts, order = self.cuts[place], self.orders.get(place)
        if order is None and len(cuts) == 1:
            return torch.narrow_copy(whole, cuts[0][0], 0, lengths[0])
        part = whole
        for (dim, _), length in zip(cuts, lengths, strict=True):
            part = part.narrow(dim, 0, length)
        if order is None:
            return part.clone(memory_format=torch.contiguous_format)
        return part.permute(order).clone(memory_format=torch.contiguous_format).permute(undone(order))  # a view, as eager's
