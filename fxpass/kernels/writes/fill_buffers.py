"""All buffers of a call are filled by one kernel (`fill_kernel`), if Triton is installed and the kernel is written for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fxpass.kernels.launches import limits
from fxpass.torch_internals.patches import tell

_failed: list[Exception] = []


class FillAtOnce:
    """Copies tensors into ``buffers``, each to the beginning along its dim, and numbers into ``numbers``, by one launch.

    The buffers are not held: each call is handed those that this was made for.
    """

    def __init__(self, buffers: Sequence[torch.Tensor], dims: Sequence[int], numbers: torch.Tensor) -> None:
        self._fill = None
        if not _failed and buffers and limits.HAS_TRITON and numbers.device.type in limits.DEVICES:
            from . import fill_kernel

            if len(buffers) > fill_kernel.MOST_TENSORS or len(numbers) > fill_kernel.MOST_NUMBERS:
                return
            if all(_fits(one, numbers, fill_kernel.MOST_ELEMENTS) for one in (*buffers, numbers)):
                self._fill = fill_kernel.BufferFill(buffers, dims, numbers)

    def __call__(self, buffers: Sequence[torch.Tensor], given: Sequence[torch.Tensor], values: Sequence[int]) -> bool:
        """Copy each of ``given``, which has the sizes of its buffer but along its dim, and ``values``, one for each number.

        Returns whether that was done. Nothing is done where the kernel is not written for these.
        """
        if self._fill is None:
            return False
        try:
            return self._fill(buffers, given, values)
        except Exception as error:  # a kernel that does not compile must not cost the call
            self._fill = None
            _failed.append(error)
            tell(FillAtOnce.__call__, error)
            return False


def _fits(buffer: torch.Tensor, numbers: torch.Tensor, most: int) -> bool:
    return (
        not buffer.dtype.is_complex
        and buffer.device == numbers.device
        and buffer.is_contiguous()
        and buffer.numel() <= most
    )
