"""Whether one kernel can fill all buffers of a call (`fills`), where Triton is installed."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence

import torch

from fxpass.torch_internals.patches import tell

from . import writing

_failed: list[Exception] = []


def fill_at_once(
    buffers: Sequence[torch.Tensor], given: Sequence[torch.Tensor], dims: Sequence[int], numbers: torch.Tensor,
    values: Sequence[int],
) -> bool:  # fmt: skip
    """Copy each of ``given`` into its one of ``buffers``, and ``values`` into ``numbers`` (see `fills.launch`); False where the
    kernel is not written for these, and nothing has been done."""
    if _failed or not given or not _has_triton() or numbers.device.type not in writing.DEVICES:
        return False
    from . import fills

    if len(given) > fills.MOST_TENSORS or len(values) > fills.MOST_NUMBERS or not numbers.is_contiguous():
        return False
    for buffer, tensor in zip(buffers, given, strict=True):
        if tensor.dtype != buffer.dtype or tensor.dtype.is_complex or not tensor.device == buffer.device == numbers.device:
            return False
        if not tensor.is_contiguous() or not buffer.is_contiguous() or buffer.numel() > fills.MOST_ELEMENTS:
            return False
    try:
        fills.fill(buffers, given, dims, numbers, values)
    except Exception as error:  # a kernel that does not compile must not cost the call
        _failed.append(error)
        tell(fill_at_once, error)
    return not _failed


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
