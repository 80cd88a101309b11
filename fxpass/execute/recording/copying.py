"""Many tensors copied at once, in any grad mode."""

from __future__ import annotations

import torch

aten = torch.ops.aten


def copy_into(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy each of ``sources`` into its one of ``targets``, which may ask for no gradients."""
    if not torch.is_grad_enabled():  # as a decode loop runs: to enter a block takes as long as to copy
        aten._foreach_copy_.default(targets, sources)
        return
    with torch.no_grad():
        aten._foreach_copy_.default(targets, sources)
