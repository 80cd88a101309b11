"""The steps of a call of an assembled graph.

    Strided     gives inputs strides that do not move, see `strides`
    Run         runs a part                                              appends its results
    WriteBack   copies the new contents of an index tensor into it
    Unpack      copies the results out of a packed one                   appends the copies
    CopyOut     replaces results by copies
    Views       makes results that are views of inputs from the inputs

All steps work on one list, ``values``. It holds the inputs of the call, then the buffers, and then what the steps append. Each
step knows the places of what it takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fxpass.execute.compilation.regions import Region
from fxpass.execute.recording.packing import Pack
from fxpass.execute.recording.results import copy_at


class Step(Protocol):
    """Reads, replaces or appends values of one call."""

    def __call__(self, values: list[Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Run:
    """Runs ``region`` on what ``takes`` takes out of the values."""

    region: Region
    takes: Callable[[Sequence[Any]], Sequence[Any]]

    def __call__(self, values: list[Any]) -> None:
        values += self.region(self.takes(values))


@dataclasses.dataclass(frozen=True)
class WriteBack:
    """Copies the value at ``source`` into the one at ``target``."""

    target: int
    source: int

    def __call__(self, values: list[Any]) -> None:
        values[self.target].copy_(values[self.source])


@dataclasses.dataclass(frozen=True)
class Unpack:
    """Appends copies of the results that ``pack`` has put together in the value at ``place``."""

    pack: Pack
    place: int

    def __call__(self, values: list[Any]) -> None:
        values += self.pack.copies(values[self.place])


@dataclasses.dataclass(frozen=True)
class CopyOut:
    """Replaces the values at ``places`` by copies. Values of one group share memory, and so do their copies."""

    places: Sequence[Sequence[int]]

    def __call__(self, values: list[Any]) -> None:
        copy_at(values, self.places)


@dataclasses.dataclass(frozen=True)
class Views:
    """Puts views of inputs in the place of results: at each place, what its function makes of the values."""

    made: Sequence[tuple[int, Callable[[Sequence[Any]], Any]]]

    def __call__(self, values: list[Any]) -> None:
        for place, make in self.made:
            values[place] = make(values)
