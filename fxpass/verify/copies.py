"""Copies of the inputs of a call, which share memory as the inputs do.

    keys = buffer[0]; values = buffer[1]        ->        two views of one copy of ``buffer``

A copy has the sizes, strides, offset, conjugation, subclass and autograd state of its input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fxpass.torch_internals.fakes import DisableTorchFunctionSubclass

_ALIGNED = 16
"""In bytes. Memories that overlap are copied as one where their starts are a multiple of this apart, which suits any dtype."""


def copied(values: Sequence[Any]) -> list[Any]:
    """Copies of the tensors and generators among ``values``; anything else as it is."""
    with torch.no_grad():
        memories = _memories([plain for value in values for plain in _plain(value)])
        made: dict[int, Any] = {}
        return [made.setdefault(id(value), _copy(value, memories)) for value in values]


@dataclasses.dataclass
class _CopiedMemory:
    """One or several storages that overlap, from address ``start`` to ``end`` on ``device``, and their ``copy``."""

    device: torch.device
    start: int
    end: int
    storages: list[torch.UntypedStorage]
    copy: Tensor

    def fill(self) -> None:
        self.copy = torch.empty(self.end - self.start, dtype=torch.uint8, device=self.device)
        for storage in self.storages:
            at = storage.data_ptr() - self.start
            self.copy[at : at + storage.nbytes()].copy_(self.copy.new_empty(0).set_(storage))


def _memories(tensors: Sequence[Tensor]) -> dict[int, _CopiedMemory]:
    """The memory behind each of the storages of ``tensors``, by the storage's id."""
    storages = {s._cdata: s for t in tensors if (s := t.untyped_storage()).nbytes()}
    found: dict[int, _CopiedMemory] = {}
    last: _CopiedMemory | None = None
    for key, storage in sorted(storages.items(), key=lambda item: (str(item[1].device), item[1].data_ptr())):
        start, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        within = last is not None and last.device == storage.device and start < last.end
        if last is None or not within or (start - last.start) % _ALIGNED:
            last = _CopiedMemory(storage.device, start, end, [], torch.empty(0))
        last.end = max(last.end, end)
        last.storages.append(storage)
        found[key] = last
    for memory in {id(m): m for m in found.values()}.values():
        memory.fill()
    return found


def inner_tensors(value: Any) -> dict[str, Any] | None:
    """The inner tensors of the wrapper subclass ``value``, by name; None for any other value."""
    if not isinstance(value, Tensor) or not hasattr(value, "__tensor_flatten__"):
        return None
    return {name: getattr(value, name) for name in value.__tensor_flatten__()[0]}


def _plain(value: Any) -> Iterator[Tensor]:
    inner = inner_tensors(value)
    if inner is not None:
        for part in inner.values():
            yield from _plain(part)
    elif isinstance(value, Tensor) and _has_memory(value):
        yield value


def _has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.device.type != "meta" and not tensor.is_quantized


def _copy(value: Any, memories: dict[int, _CopiedMemory]) -> Any:
    if isinstance(value, torch.Generator):
        return value.clone_state()
    if not isinstance(value, Tensor):
        return value
    with torch.inference_mode(value.is_inference()), DisableTorchFunctionSubclass():
        return _like(value, memories)


def _like(value: Tensor, memories: dict[int, _CopiedMemory]) -> Tensor:
    inner = inner_tensors(value)
    if inner is not None:
        made = {name: _copy(part, memories) for name, part in inner.items()}
        context = value.__tensor_flatten__()[1]  # type: ignore[attr-defined]
        new = type(value).__tensor_unflatten__(made, context, value.size(), value.stride())  # type: ignore[attr-defined]
    elif not _has_memory(value):
        new = value.detach().clone()
    else:
        new = _view(value, memories)
    if type(new) is not type(value):
        new = Tensor._make_subclass(type(value), new)
        new.__dict__.update(value.__dict__)
    if not value.requires_grad:
        return new
    return new.requires_grad_() if value.is_leaf else _beyond_a_leaf(new)


def _view(value: Tensor, memories: dict[int, _CopiedMemory]) -> Tensor:
    """The part of the copied memory that corresponds to ``value``."""
    storage = value.untyped_storage()
    memory = memories.get(storage._cdata)
    new = torch.empty(0, dtype=value.dtype, device=value.device)
    if memory is None:
        return new.as_strided(value.size(), value.stride())
    offset = (storage.data_ptr() - memory.start) // value.element_size() + value.storage_offset()
    new.set_(memory.copy.untyped_storage(), offset, value.size(), value.stride())
    new = new.conj() if value.is_conj() else new
    return torch.ops.aten._neg_view.default(new) if value.is_neg() else new


def _beyond_a_leaf(new: Tensor) -> Tensor:
    """``new`` as a result of autograd, and no leaf, so that it may be written."""
    with torch.enable_grad():
        return new.mul_(torch.ones((), dtype=new.dtype, device=new.device, requires_grad=True))
