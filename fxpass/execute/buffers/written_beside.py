"""A graph reads what grows in a buffer. What it writes to the tensor itself, by another name, it would not see there.

    f(past, past[:, -1:])       the second is written in place, and all of the first is read afterwards
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.arguments import values_at
from fxpass.graph.memory_addresses import memory_address, memory_addresses


class WrittenBeside:
    """The tensors at the ``places`` that a graph writes to, given the placeholders ``buffers`` of what it has made itself."""

    def __init__(self, buffers: Sequence[fx.Node]) -> None:
        written = aliases.written_inputs(buffers[0].graph) - set(buffers) if buffers else set()
        inputs = buffers[0].graph.find_nodes(op="placeholder") if written else []
        self.places = [i for i, node in enumerate(inputs) if node in written]
        self._of = values_at(self.places)
        self._starts: list[int] = []
        self._memories: set[int] = set()

    def share(self, args: Sequence[Any], tensors: Sequence[torch.Tensor]) -> bool:
        """Whether one of ``tensors`` lies in the memory of one that is written, in a call with the arguments ``args``."""
        written = self._of(args)
        starts = [tensor.data_ptr() for tensor in written]
        if starts != self._starts:  # caches stay where they are: their memory is asked for once
            self._starts, self._memories = starts, memory_addresses(written)
        return not self._memories.isdisjoint(map(memory_address, tensors))
