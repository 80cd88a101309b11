"""The host mirror: the contents of index tensors, known without asking the device.

A guard on a position needs the number on every call. Reading it from a GPU tensor would wait for the device, so the mirror
remembers the last known values of each index tensor, together with its identity, PyTorch's version counter and its memory:

    values(t)    identity, ``t._version`` and memory as remembered  ->  the remembered values, no device read
                 otherwise                                          ->  one device read, which is remembered
    advance(t)   after a compiled call, with the values that the graph's arithmetic gives

A tensor in host memory is read on every call. That costs less than the look-up, and sees writes that PyTorch does not count
(through ``numpy()`` or ``.data``). A difference there is counted as a read, so that tests on a CPU tell about the GPU.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch

from .formula import evaluate


@dataclasses.dataclass
class Counters:
    """How often values were asked for since the last `reset`: ``refreshes`` is how often the tensor was read, and ``hits`` how
    often what was remembered was right."""

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

    def is_unwritten(self, tensor: Any) -> bool:
        """Whether ``tensor`` has not been written since, as far as PyTorch counts.

        The memory is compared too, since ``t.data = other`` exchanges it and leaves the version as it was.
        """
        return (
            self.version == tensor._version
            and self.storage._cdata == tensor.untyped_storage()._cdata
            and self.layout == (tensor.storage_offset(), tensor.stride())
        )


counters = Counters()
_entries: dict[int, _Remembered] = {}


def values(tensor: Any) -> tuple[int, ...]:
    """All elements of ``tensor`` (any shape, integer dtype) in row-major order, as Python ints.

    A call of a compiled graph asks a few times for each index tensor.
    """
    entry, loaded = _entries.get(id(tensor)), None
    if entry is not None and entry.ref() is tensor:
        if entry.on_host:
            loaded = _load(tensor)
            is_same = loaded == entry.values
        else:
            is_same = entry.is_unwritten(tensor)
        if is_same:
            counters.hits += 1
            return entry.values
    counters.refreshes += 1
    loaded = _load(tensor) if loaded is None else loaded
    if not tensor.is_inference():
        _remember(tensor, loaded)
    return loaded


def read(tensor: Any, index: int) -> int:
    """Element ``index`` (row-major) of the integer ``tensor``. Called from guards and from Dynamo's bytecode."""
    return values(tensor)[index]


def computed(tensor: Any, text: str) -> Any:
    """What the `formula_text` ``text`` makes of the elements of ``tensor``. Called from guards and from Dynamo's bytecode."""
    return evaluate(text, values(tensor))


def all_agree(held: Sequence[int], pairs: Sequence[tuple[int, int]]) -> bool:
    """Whether the two elements of each of ``pairs``, of the elements ``held``, are the same number. Called from guards."""
    for index, other in pairs:
        if held[index] != held[other]:
            return False
    return True


def advance(tensor: torch.Tensor, new_values: Sequence[int]) -> None:
    """Remember ``new_values`` as what ``tensor`` holds now, after a compiled call has written them.

    Of a tensor in host memory nothing but the values is ever compared, so nothing else is looked up.
    """
    entry = _entries.get(id(tensor))
    if entry is not None and entry.on_host and tensor.is_cpu and entry.ref() is tensor:
        entry.values = tuple(new_values)
    elif not tensor.is_inference():
        _remember(tensor, tuple(new_values))


def known_values(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """All elements of ``tensor``, if somebody has asked for them before; None otherwise."""
    entry = _entries.get(id(tensor))
    return values(tensor) if entry is not None and entry.ref() is tensor else None


def remember_contents(fake: torch.Tensor, held: tuple[int, ...]) -> None:
    """Remember ``held`` for ``fake``, a tensor without data that stands for an index tensor with these numbers."""
    if not fake.is_inference():
        _remember(fake, held)
        _entries[id(fake)].on_host = False


def forget(tensor: torch.Tensor) -> None:
    """Forget what ``tensor`` holds, and that it is there."""
    _entries.pop(id(tensor), None)


def reset() -> None:
    """Forget every index tensor and zero the counters."""
    _entries.clear()
    counters.refreshes = counters.hits = 0


def _load(tensor: torch.Tensor) -> tuple[int, ...]:
    """All elements of ``tensor``, by `tolist` alone: this runs in guards, and one operator would cost more than all of it."""
    held: Any = tensor.tolist()
    if not (dims := tensor.dim()):
        return (held,)
    for _ in range(dims - 1):
        held = chain.from_iterable(held)
    return tuple(held)


def _remember(tensor: torch.Tensor, loaded: tuple[int, ...]) -> None:
    key = id(tensor)
    before = _entries.get(key)
    ref = before.ref if before is not None and before.ref() is tensor else weakref.ref(tensor, partial(_forget, key))
    layout = tensor.storage_offset(), tensor.stride()
    storage = tensor.untyped_storage()  # keeping it alive keeps its address from being used again
    _entries[key] = _Remembered(ref, tensor._version, storage, layout, loaded, tensor.is_cpu)


def _forget(key: int, ref: weakref.ref[torch.Tensor]) -> None:
    entry = _entries.get(key)
    if entry is not None and entry.ref is ref:
        del _entries[key]
