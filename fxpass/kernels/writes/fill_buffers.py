"""All buffers of a call are filled by one kernel (`fill_kernel`), if Triton is installed and the kernel is written for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxpass.kernels.launches import limits
from fxpass.torch_internals.patches import tell

_failed: list[Exception] = []


def fill_at_once(
    buffers: Sequence[torch.Tensor], given: Sequence[torch.Tensor], dims: Sequence[int], numbers: torch.Tensor,
    values: Sequence[int],
) -> bool:  # fmt: skip
    """Copy each of ``given`` into the buffer at its place, and ``values`` into ``numbers``, see `fill_kernel.fill`.

    Returns whether that was done. Nothing is done where the kernel is not written for these.
    """
    if _failed or not given or not limits.HAS_TRITON or numbers.device.type not in limits.DEVICES:
        return False
    from . import fill_kernel

    if len(given) > fill_kernel.MOST_TENSORS or len(values) > fill_kernel.MOST_NUMBERS or not numbers.is_contiguous():
        return False
    for buffer, tensor in zip(buffers, given, strict=True):
        if tensor.dtype != buffer.dtype or tensor.dtype.is_complex or not tensor.device == buffer.device == numbers.device:
            return False
        if not tensor.is_contiguous() or not buffer.is_contiguous() or buffer.numel() > fill_kernel.MOST_ELEMENTS:
            return False
    try:
        fill_kernel.fill(buffers, given, dims, numbers, values)
    except Exception as error:  # a kernel that does not compile must not cost the call
        _failed.append(error)
        tell(fill_at_once, error)
    return not _failed
