"""Where the tensors of a call lie: those that share memory have one address here, whatever part of the memory each is.

The nodes of a graph are asked in `aliases`, before there is a call.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


def memory_address(tensor: torch.Tensor) -> int:
    """The address at which the memory of ``tensor`` starts; 0 if it has none, as an empty or a sparse tensor."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0


def memory_addresses(tensors: Iterable[torch.Tensor]) -> set[int]:
    """The addresses of all memory that ``tensors`` lie in."""
    return {*map(memory_address, tensors)} - {0}
