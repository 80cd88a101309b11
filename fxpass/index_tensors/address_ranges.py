"""Graph inputs that share memory.

The table follows each graph input by itself. It does not see in one input what is written through another. So when a graph
writes to an input, the contents of all other inputs that overlap it are lost, and its own as well if its elements share
addresses (`WrittenInputs`). Whether inputs overlap is checked when the graph is captured, and guarded from then on
(`disjoint`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from fxpass.graph.numbers import hint
from fxpass.graph.schemas import memory_of
from fxpass.torch_internals.fakes import FakeTensor


@dataclasses.dataclass(frozen=True)
class AddressRange:
    """The addresses ``start <= address < end`` of the integer tensor that is given for a graph input in this call."""

    source: Any
    start: int
    end: int

    @classmethod
    def of(cls, node: fx.Node) -> AddressRange | None:
        """The range of the graph input ``node``; None for a tensor of floats, which is no index, and one without addresses."""
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


class WrittenInputs:
    """Which inputs of ``graph`` it has written to so far, and which others lie where they do."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.written: set[fx.Node] = set()
        self.known: set[fx.Node] = set()
        """The inputs from which numbers are read although the table does not follow them (`expressions`)."""
        self.ranges: dict[fx.Node, AddressRange] = {}
        """The ranges of the inputs that were asked about. They are kept, since Dynamo drops inputs that it does not need."""

    def write(self, node: fx.Node) -> set[fx.Node]:
        """Note that ``node``, a graph input or a view of one, is written to; gives the other inputs that lie there."""
        memory = memory_of(node.meta.get("example_value"))
        targets = [
            n for n in self.graph.find_nodes(op="placeholder") if memory is not None and self._is_at(n, memory)
        ]
        self.written.update(targets)
        others = {other for target in targets for other in self._neighbors(target)}
        self.known -= others
        return others

    def is_written_elsewhere(self, node: fx.Node) -> bool:
        """Whether an input that lies where the graph input ``node`` does has been written to."""
        return not self.written.isdisjoint(self._neighbors(node))

    def _is_at(self, placeholder: fx.Node, memory: int) -> bool:
        return memory_of(placeholder.meta.get("example_value")) == memory and self._range(placeholder) is not None

    def _neighbors(self, node: fx.Node) -> set[fx.Node]:
        """The graph inputs whose addresses overlap those of the graph input ``node``. It is among them if two of its elements
        share an address."""
        own = self._range(node)
        if own is None:
            return set()
        found = {n for n, other in self.ranges.items() if own.overlaps(other)}
        return found if overlaps_itself(node.meta["example_value"]) else found - {node}

    def _range(self, node: fx.Node) -> AddressRange | None:
        if node not in self.ranges and (own := AddressRange.of(node)) is not None:
            self.ranges[node] = own
        return self.ranges.get(node)


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether several elements of ``tensor`` may lie at one address, as in ``t.expand(3)``."""
    last = 0
    for stride, size in sorted(zip(map(hint, tensor.stride()), map(hint, tensor.shape), strict=True)):
        if size > 1 and stride <= last:
            return True
        last += (size - 1) * stride
    return False


def span(tensor: torch.Tensor) -> tuple[int, int]:
    """The address of the first element of ``tensor``, and the one behind its last; two zeros where it has no addresses."""
    if isinstance(tensor, FakeTensor):
        return 0, 0
    if tensor.is_contiguous():
        return (start := tensor.data_ptr()), start + tensor.nbytes
    if tensor.numel() == 0:
        return 0, 0
    start = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.element_size()


def disjoint(tensors: Sequence[tuple[torch.Tensor, bool, bool]]) -> bool:
    """Whether no tensor that a graph writes overlaps another one whose contents the table knows. Called from guards.

    Args:
        tensors: each tensor with whether the graph writes to it, and whether the table knows what it holds.
    """
    ranges = [(*span(t), written, known) for t, written, known in tensors]
    ranges.sort()
    written_end = known_end = 0
    for start, end, written, known in ranges:
        if start == end:
            continue
        if known and start < written_end or written and start < known_end:
            return False
        if written and end > written_end:
            written_end = end
        if known and end > known_end:
            known_end = end
    return True
