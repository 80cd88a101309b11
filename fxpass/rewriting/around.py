"""What stands around a graph whose inputs grow, as plain data: it may be kept for another process."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .sliced_results import SliceOf


@dataclasses.dataclass(frozen=True)
class Axis:
    """One input that grows.

    place: which of the graph's inputs it is.
    dim: along which it grows.
    rows: how many rows a call adds: a number, or the input and the dim whose size that is.
    results: which of the graph's results are what was joined.
    views: those of them that are views of it, `joined[:, -8:]`, which Dynamo tells from a tensor of its own.
    """

    place: int
    dim: int
    rows: int | tuple[int, int]
    results: tuple[int, ...]
    views: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dense:
    """The ``number``-th of the results that a flat tensor begins with: of sizes ``before`` and ``after`` that of its cut."""

    number: int
    before: tuple[int, ...]
    after: tuple[int, ...]

    def of(self, flat: torch.Tensor, length: int) -> torch.Tensor:
        """It, out of ``flat``, whose memory it shares without a version counter."""
        shape = (*self.before, length, *self.after)
        size = math.prod(shape)
        start = self.number * size
        return torch.unsafe_split_with_sizes(flat, [start, size, flat.numel() - start - size])[1].view(shape)


@dataclasses.dataclass(frozen=True)
class Around:
    """What stands around a graph that has buffers: plain data.

    axes: one for each buffer, in the order of these last inputs.
    cuts: the results that leave the graph in full; along which dims they are cut, and to which length, a `formula`.
    orders: the order in memory of the dims of those that are not contiguous.
    slices: the results that do not leave it, since they are slices of others.
    dense: of the results that are cut, those that are put together (`dense`).
    copies: the inputs that are copied as they are, each into an input behind the buffers, which stays where it is.
    numbers: formulas for what stands in the graph's very last input, if there are any.
    """

    axes: Sequence[Axis] = ()
    cuts: dict[int, tuple[tuple[int, Any], ...]] = dataclasses.field(default_factory=dict)
    orders: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    slices: dict[int, SliceOf] = dataclasses.field(default_factory=dict)
    dense: Mapping[int, Dense] = dataclasses.field(default_factory=dict)
    copies: Sequence[int] = ()
    numbers: Sequence[Any] = ()

    @property
    def inputs(self) -> int:
        """How many of the graph's inputs are not given by its caller."""
        return len(self.axes) + len(self.copies) + bool(self.numbers)
