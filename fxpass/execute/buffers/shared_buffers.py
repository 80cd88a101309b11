"""Buffers of what grows, which the graphs of a model share.

All graphs that have a buffer for the same input share that buffer: a step of one row and a step of several, or the first step
after a crop and the step after it. So each cache is kept once, and a graph goes on from what another graph has joined.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from array import array
from collections.abc import Hashable, Sequence

import torch
from torch import fx

from fxpass.graph.inputs import belongs_to_module
from fxpass.graph.values import is_tensor


@dataclasses.dataclass(frozen=True)
class Held:
    """The tensor that was last copied out of a buffer, with its version and its address at that time."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    address: int

    @staticmethod
    def of(tensor: torch.Tensor) -> Held | None:
        """The record of ``tensor``; None where PyTorch does not count what is written to it."""
        return None if tensor.is_inference() else Held(weakref.ref(tensor), tensor._version, tensor.data_ptr())

    def is_still(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` is the one that was copied out, and has not been written since."""
        held = self.tensor()
        return held is not None and held is tensor and (held._version, held.data_ptr()) == (self.version, self.address)


@dataclasses.dataclass(eq=False)
class Buffer:
    """Memory of ``capacity`` rows, and what it holds. There is none at first."""

    memory: torch.Tensor | None = None
    capacity: int = 0
    held: Held | None = None
    _left: weakref.ref[torch.UntypedStorage] | None = None

    def gives(self, tensor: torch.Tensor) -> None:
        """Note that ``tensor`` is a copy of what this holds."""
        self.held, self._left = Held.of(tensor), weakref.ref(tensor.untyped_storage())

    def has_left(self, tensor: torch.Tensor) -> bool:
        """Whether ``tensor`` lies in the memory of the last copy of this. Once that memory has been freed, no tensor does,
        whatever lies there now."""
        return self._left is not None and self._left() is tensor.untyped_storage()

    def let_go(self) -> None:
        """Free the memory."""
        self.memory, self.capacity, self.held = None, 0, None


class Numbers:
    """``count`` numbers in a ``tensor`` (int64) on ``device``. In host memory, the tensor lies in an array of Python's, which
    is written without an operator."""

    def __init__(self, count: int, device: torch.device) -> None:
        self._cells = array("q", bytes(8 * count)) if count and device.type == "cpu" else None
        if self._cells is None:
            self.tensor = zeroed_memory(torch.empty(0, dtype=torch.int64, device=device), [count])
            return
        with torch.inference_mode(False):
            self.tensor = torch.frombuffer(self._cells, dtype=torch.int64)

    def put(self, numbers: Sequence[int]) -> None:
        """Write ``numbers``, as many as there are, into the tensor."""
        if self._cells is not None:
            for place, number in enumerate(numbers):  # a slice might resize the array, and leave the tensor without memory
                self._cells[place] = number
        elif len(numbers) == 1:
            self.tensor.fill_(numbers[0])
        elif numbers:  # from memory that is not pinned: it is read before this returns
            self.tensor.copy_(torch.tensor(numbers), non_blocking=True)


_shared: weakref.WeakValueDictionary[Hashable, Buffer] = weakref.WeakValueDictionary()


def shared(owner: torch.Tensor | None, place: int, dim: int, like: torch.Tensor) -> Buffer:
    """This thread's buffer for the ``place``-th input that grows: along ``dim``, and in all else ``like`` a tensor.

    All graphs with the same first parameter, ``owner``, get the same one. Without a parameter there is nothing to share.
    """
    if owner is None:
        return Buffer()
    sizes = (*like.shape[:dim], None, *like.shape[dim + 1 :])
    return _shared.setdefault((threading.get_ident(), id(owner), place, sizes, like.dtype, like.device), Buffer())


def owner_of(nodes: Sequence[fx.Node]) -> int | None:
    """The place of the model's first parameter among the inputs of a graph, which end with the buffers ``nodes``."""
    inputs = nodes[0].graph.find_nodes(op="placeholder") if nodes else []
    tensors = ((i, n) for i, n in enumerate(inputs) if is_tensor(n))
    return next((i for i, n in tensors if n not in nodes and belongs_to_module(n)), None)


def zeroed_memory(like: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """A tensor of ``shape`` that is ``like`` another one, and can be written in any grad mode."""
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
