"""``kvfix::join``: `torch.cat`, which Inductor generates part by part (`torch_internals.inductor.part_by_part`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.library import custom_op


@custom_op("kvfix::join", mutates_args=())
def join_parts(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """``torch.cat(parts)`` for parts of one dim and one dtype."""
    return torch.cat(list(parts))


@join_parts.register_fake
def _(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(parts))
