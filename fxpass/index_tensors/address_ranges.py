"""Index tensors that lie in one memory. The table follows each graph input by itself, and does not see in one what is written
through another. So a write to one loses the others that lie there when the graph is traced, and that this is all is a guard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.fakes import FakeTensor


@dataclasses.dataclass(frozen=True)
class AddressRange:
    """Where the integer tensor lies that a graph input is given now: its addresses, from ``start`` to before ``end``."""

    source: Any
    start: int
    end: int

    @classmethod
    def of(cls, node: fx.Node) -> AddressRange | None:
        """That of the graph input ``node``; None for what cannot be an index, or has no addresses."""
        argument, fake = node.meta.get("grapharg"), node.meta.get("example_value")
        if argument is None or not isinstance(fake, torch.Tensor) or fake.is_floating_point():
            return None
        try:
            start, end = span(argument.example)
        except (AssertionError, AttributeError, RuntimeError):
            return None
        return cls(argument.source, start, end) if start < end else None

    def overlaps(self, other: AddressRange) -> bool:
        """Whether the two have an address in common."""
        return max(self.start, other.start) < min(self.end, other.end)


def span(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses of the first element of ``tensor``, and behind the last; two zeros where there are none."""
    if isinstance(tensor, FakeTensor) or tensor.numel() == 0:
        return 0, 0
    start = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def disjoint(tensors: Sequence[tuple[torch.Tensor, bool, bool]]) -> bool:
    """Whether what a graph writes is nowhere what it knows otherwise. Called from guards.

    Args:
        tensors: each with whether the graph writes to it, and whether the table knows what it holds.
    """
    written_end = known_end = 0
    for (start, end), written, known in sorted((span(t), written, known) for t, written, known in tensors):
        if known and start < written_end or written and start < known_end:
            return False
        written_end = max(written_end, end) if written else written_end
        known_end = max(known_end, end) if known else known_end
    return True
