"""What a call of an assembled graph does, one small step after the other.

    Strided     inputs get strides that do not move         see `strides`
    Run         a part, on what was there before            values grow by its results
    WriteBack   index tensors take their new contents
    Unpack      a packed result is copied apart             values grow by the copies
    CopyOut     results leave the recording's memory
    View        a result that is a view of an input is taken of it anew

``values`` holds the inputs of the call, then the buffers, then what steps have made; a step knows its places in it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import fx

from .recording.packing import Pack
from .recording.results import copied_groups, rebuilt_view
from .regions import Region


class Step(Protocol):
    """Reads and extends the values of one call."""

    def __call__(self, values: list[Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """Runs ``region`` on the values at ``takes``."""

    region: Region
    takes: Sequence[int]

    def __call__(self, values: list[Any]) -> None:
        values += self.region([values[i] for i in self.takes])


@dataclasses.dataclass(frozen=True)
class WriteBack:
    """Copies the value at ``source`` into the one at ``target``."""

    target: int
    source: int

    def __call__(self, values: list[Any]) -> None:
        values[self.target].copy_(values[self.source])


@dataclasses.dataclass(frozen=True)
class Unpack:
    """Copies apart what ``pack`` has put together at ``place``."""

    pack: Pack
    place: int

    def __call__(self, values: list[Any]) -> None:
        values += self.pack.copies(values[self.place])


@dataclasses.dataclass(frozen=True)
class CopyOut:
    """Replaces the values at each group of ``places``, which share memory, by copies that share theirs."""

    places: Sequence[Sequence[int]]

    def __call__(self, values: list[Any]) -> None:
        copied = copied_groups([[values[i] for i in group] for group in self.places])
        for place, value in zip(itertools.chain(*self.places), copied, strict=True):
            values[place] = value


@dataclasses.dataclass(frozen=True)
class View:
    """Puts at ``place`` what ``node`` is, taken of the ``inputs``, given with their places."""

    node: fx.Node
    place: int
    inputs: Mapping[fx.Node, int]

    def __call__(self, values: list[Any]) -> None:
        values[self.place] = rebuilt_view(self.node, {n: values[i] for n, i in self.inputs.items()})
