"""Many tensors copied at once, in any grad mode."""

from __future__ import annotations

import torch

from fxpass.torch_internals.operators import foreach_copy


def copy_into(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """Copy each of ``sources`` into the tensor at its place in ``targets``. No gradient follows the copy."""
    if not torch.is_grad_enabled():  # as a decode loop runs: to enter a block takes as long as to copy
        foreach_copy(targets, sources)
        return
    with torch.no_grad():
        foreach_copy(targets, sources)
