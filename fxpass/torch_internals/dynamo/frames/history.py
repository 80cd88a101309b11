"""What has been seen of the numbers of each frame, from one compilation to the next."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from types import CodeType
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from fxpass.analysis.calls import CallHistory
from fxpass.graph.fixed_places import Places
from fxpass.index_tensors.history import ElementHistory
from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.dynamo.names import InstructionTranslator, config
from fxpass.torch_internals.features import holds

Owner = tuple[int | tuple[int, Places], ...]
"""What a graph is for: the identities of modules, and of caches with places in them (`inputs.pinned_numbers`)."""


@dataclasses.dataclass
class FrameHistory:
    """What has been seen of one frame. Numbers go by the names of their sources.

    ints, sizes: the first value of each int, and the first sizes of each tensor.
    written: the tensors that a graph of the frame has written to.
    writes_now: those that the latest graph writes to, each with the places in it that the graph works on.
    written_tensors: the tensors, of those that still exist, that calls have written to, each with such places.
    ints_now: the ints of the compilation under way.
    met: the compilations that have met each int.
    elements: the history of each index tensor.
    calls: the history of the frame's calls.
    fixed_sizes: the sizes that each index tensor has been fixed at.
    fixed_numbers: the values that each other number has been fixed at.
    of_modules: the values that each int of a module has had.
    places: the ints that say at which place of a list something is.
    slices: whether the frame slices caches.
    loses_slices: whether the report has told that a slice leaves one of its graphs for a graph break.
    loses_joined: whether a cache that one of its graphs makes longer leaves it for a graph break.
    excluded: the places at which it calls functions that are not compiled, and that the report has told of.
    makes_texts: whether it makes strings of numbers.
    tied: the first values of numbers that go with a position, or with a size that has changed.
    owners: the identities of the modules and caches that each compilation was for, of a cache with the places in it.
    pinned: for each of these, the values of the constants in the latest graph, by name and place (see `inputs.pinned_numbers`).
    marked: Dynamo's entries of the tensors whose sizes we made dynamic, with the sizes before; None if sizes are to stay fixed.
    returned: the sizes and dtypes of the tensors that graphs of the frame have returned.
    foreseen: the inputs that are such tensors and got a dynamic size, with the dim and the size, until the frame is compiled.
    dynamic_in_vain: the inputs that got a dynamic size in vain.
    longer: the inputs of which graphs of the frame have returned something longer, with the dim along which it is longer.
    grown: the inputs that had a buffer in a graph of the frame, with the dim along which rows were joined to them.
    """

    ints: dict[str, int] = dataclasses.field(default_factory=dict)
    sizes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    written: set[str] = dataclasses.field(default_factory=set)
    writes_now: dict[str, Places] = dataclasses.field(default_factory=dict)
    written_tensors: WeakIdKeyDictionary = dataclasses.field(default_factory=WeakIdKeyDictionary)
    ints_now: dict[str, int] = dataclasses.field(default_factory=dict)
    met: dict[str, set[str]] = dataclasses.field(default_factory=dict)
    elements: dict[str, ElementHistory] = dataclasses.field(default_factory=dict)
    calls: CallHistory = dataclasses.field(default_factory=CallHistory)
    fixed_sizes: dict[str, set[tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    fixed_numbers: dict[str, set[float]] = dataclasses.field(default_factory=dict)
    of_modules: dict[str, set[int]] = dataclasses.field(default_factory=dict)
    places: set[str] = dataclasses.field(default_factory=set)
    slices: bool = False
    loses_slices: bool = False
    loses_joined: bool = False
    excluded: set[str] = dataclasses.field(default_factory=set)
    makes_texts: bool = False
    tied: set[int] = dataclasses.field(default_factory=set)
    owners: dict[str, Owner] = dataclasses.field(default_factory=dict)
    pinned: dict[Owner, dict[tuple[str, str], set[int]]] = dataclasses.field(default_factory=dict)
    marked: list[tuple[Any, tuple[Any, ...]]] | None = dataclasses.field(default_factory=list)
    returned: set[Any] = dataclasses.field(default_factory=set)
    foreseen: dict[str, tuple[int, Any]] = dataclasses.field(default_factory=dict)
    dynamic_in_vain: set[str] = dataclasses.field(default_factory=set)
    longer: dict[str, int] = dataclasses.field(default_factory=dict)
    grown: set[tuple[str, int]] = dataclasses.field(default_factory=set)


_frames: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""By code object, compared by identity, as long as it lives: two functions that are made from one text have two."""


def forget() -> None:
    """Forget what has been seen."""
    _frames.clear()


def let_go(tensor: torch.Tensor) -> None:
    """Hold ``tensor`` no longer, not even weakly."""
    for seen in list(_frames.values()):
        seen.written_tensors.pop(tensor, None)


def history_of(code: CodeType) -> FrameHistory:
    """What has been seen of the frame of ``code``."""
    return _frames.setdefault(code, FrameHistory())


def is_known(code: CodeType) -> bool:
    """Whether the frame of ``code`` has been compiled for kvfix."""
    return code in _frames


def current_frame() -> Any:
    """Dynamo's translator of the frame that it is compiling in this thread; None if there is none."""
    if not holds(Feature.CAPTURE):
        return None
    try:
        tx = InstructionTranslator.current_tx()
    except (AttributeError, AssertionError):
        return None  # not called by Dynamo
    return None if tx is None else tx.output.root_tx


def current_code() -> CodeType | None:
    """The code of the frame that Dynamo is compiling in this thread; None if there is none."""
    tx = current_frame()
    return None if tx is None else tx.f_code


@contextlib.contextmanager
def following(code: CodeType) -> Iterator[None]:
    """Let numbers that move become dynamic in the block if the frame of ``code`` is new or slices caches, also where
    ``dynamic=False`` fixes all sizes."""
    new = code not in _frames
    with config.patch(automatic_dynamic_shapes=True) if new or history_of(code).slices else contextlib.nullcontext():
        yield


def calls_of(code: CodeType) -> tuple[CallHistory, dict[str, int]]:
    """The history of the calls of a frame, and its ints as they are now."""
    seen = history_of(code)
    return seen.calls, dict(seen.ints_now)


def see_elements(code: CodeType, name: str, values: tuple[int, ...]) -> ElementHistory:
    """Note that the elements of the index tensor called ``name`` are ``values`` now; gives their history."""
    history = history_of(code).elements.setdefault(name, ElementHistory())
    history.see(values)
    return history


def see_sizes(code: CodeType, name: str, sizes: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Note that the index tensor called ``name`` has ``sizes`` now; gives all sizes that it has had."""
    seen = history_of(code).fixed_sizes.setdefault(name, set())
    seen.add(sizes)
    return seen


def may_fix(code: CodeType, name: str, value: float, most: int) -> bool:
    """Whether the number called ``name`` may be fixed at ``value``, which is noted then.

    It may if it has been fixed at fewer than ``most`` values, and does not move with every call.
    """
    seen = history_of(code)
    values = seen.fixed_numbers.setdefault(name, set())
    if value not in values and values and (len(values) >= most or not seen.calls.repeated()):
        return False
    values.add(value)
    return True
