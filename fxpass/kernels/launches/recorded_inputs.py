"""The inputs of a recording that is being made. What they hold is there before the recording starts.

A tensor that a kernel takes may be a copy of an input, which another kernel of the same recording makes. So the address decides
whether a tensor is an input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextvars import ContextVar

import torch

from fxpass.graph.memory_addresses import memory_address, memory_addresses

_memory: ContextVar[frozenset[int]] = ContextVar("memory", default=frozenset())


@contextlib.contextmanager
def recording_of(inputs: Iterable[object]) -> Iterator[None]:
    """A block that records a function of ``inputs``."""
    token = _memory.set(frozenset(memory_addresses(t for t in inputs if isinstance(t, torch.Tensor))))
    try:
        yield
    finally:
        _memory.reset(token)


def is_input(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` lies in the memory of an input of the recording that is being made."""
    return memory_address(tensor) in _memory.get()
