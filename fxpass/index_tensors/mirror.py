"""The host mirror: what the compiler believes an index tensor holds, without asking the device.

A guard on a position must know the number on every call. Reading it from a GPU tensor would stall the stream, so the
mirror keeps the last known values of each index tensor, keyed by identity, PyTorch's version counter and the memory:

    read(t)      identity, ``t._version`` and memory as remembered  ->  the remembered values, no device read
                 otherwise                                          ->  ONE device read, remembered
    advance(t)   after a compiled call, with the values that the graph's own arithmetic gives

Host memory is always read as it is (it costs no more than looking the mirror up, and catches writes that PyTorch does
not count, through ``numpy()`` or ``.data``); the counters work alike on both so that CPU tests speak for the GPU.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .formula import evaluate


@dataclasses.dataclass
class Counters:
    """Reads of index tensors since the last `reset`: ``refreshes`` touched the tensor, ``hits`` did not need to."""

    refreshes: int = 0
    hits: int = 0


@dataclasses.dataclass(slots=True)
class _Remembered:
    ref: Callable[[], Any]
    version: int
    storage: torch.UntypedStorage
    layout: tuple[Any, ...]
    values: tuple[int, ...]
    on_host: bool

    def is_of(self, tensor: Any) -> bool:
        """Whether nothing that PyTorch tells of ``tensor``, which has a version, has changed: ``t.data = other``
        leaves the version, and changes the memory."""
        return (
            self.ref() is tensor
            and self.version == tensor._version
            and self.storage._cdata == tensor.untyped_storage()._cdata
            and self.layout == (tensor.storage_offset(), tensor.stride())
        )


counters = Counters()
_entries: dict[int, _Remembered] = {}


def values(tensor: Any) -> tuple[int, ...]:
    """All elements of ``tensor`` (any shape, integer dtype) in row-major order, as Python ints."""
    entry = _entries.get(id(tensor))
    if entry is not None and entry.is_of(tensor):
        if not entry.on_host or entry.values == _load(tensor):
            counters.hits += 1
            return entry.values
    counters.refreshes += 1
    loaded = _load(tensor)
    if not tensor.is_inference():
        _remember(tensor, loaded)
    return loaded


def read(tensor: Any, index: int) -> int:
    """Element ``index`` (row-major) of the integer ``tensor``. Called from guards and from Dynamo's bytecode."""
    return values(tensor)[index]


def computed(tensor: Any, text: str) -> Any:
    """What the `formula` ``text`` makes of the elements of ``tensor``. Called from guards and from Dynamo's bytecode."""
    return evaluate(text, values(tensor))


def agree(tensor: Any, index: int, other: int) -> bool:
    """Whether two elements of ``tensor`` are the same number."""
    return all_agree(tensor, [(index, other)])


def all_agree(tensor: Any, pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether the two elements of each of ``pairs`` are the same number. Called from guards."""
    held = values(tensor)
    for index, other in pairs:
        if held[index] != held[other]:
            return False
    return True


def advance(tensor: torch.Tensor, new_values: Sequence[int]) -> None:
    """Remember ``new_values`` as what ``tensor`` holds now, after a compiled call has written them."""
    if not tensor.is_inference():
        _remember(tensor, tuple(new_values))


def known(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """What is remembered of ``tensor``, if it has been read, and not been written since."""
    entry = _entries.get(id(tensor))
    return entry.values if entry is not None and entry.is_of(tensor) else None


def describe(fake: torch.Tensor, held: tuple[int, ...]) -> None:
    """Let ``fake``, which holds nothing, stand for an index tensor that holds these numbers."""
    if not fake.is_inference():
        _remember(fake, held)
        _entries[id(fake)].on_host = False


def reset() -> None:
    """Forget every index tensor and zero the counters."""
    _entries.clear()
    counters.refreshes = counters.hits = 0


def _load(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.detach().reshape(-1).tolist())


def _remember(tensor: torch.Tensor, loaded: tuple[int, ...]) -> None:
    key = id(tensor)

    def forget(ref: weakref.ref[torch.Tensor]) -> None:
        entry = _entries.get(key)
        if entry is not None and entry.ref is ref:
            del _entries[key]

    layout = tensor.storage_offset(), tensor.stride()
    storage = tensor.untyped_storage()  # held, so that no other can come to lie there
    on_host = tensor.device.type == "cpu"
    _entries[key] = _Remembered(weakref.ref(tensor, forget), tensor._version, storage, layout, loaded, on_host)
