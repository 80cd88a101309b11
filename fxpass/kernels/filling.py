"""Fills all buffers of a call with one kernel (`fills`), where Triton is installed and the kernel is written for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import torch

from fxpass.torch_internals.patches import tell

from .limits import addressed

_failed: list[Exception] = []


def fill_at_once(
    buffers: Sequence[torch.Tensor], given: Sequence[torch.Tensor], dims: Sequence[int], numbers: torch.Tensor,
    values: Sequence[int],
) -> bool:  # fmt: skip
    """Copy each of ``given`` into its one of ``buffers``, and ``values`` into ``numbers``, see `fills.launch`.

    Returns whether that was done: where the kernel is not written for these, nothing is.
    """
    if _failed or not given or importlib.util.find_spec("triton") is None or not addressed(*buffers, *given, numbers):
        return False
    from . import fills

    alike = all(b.dtype == t.dtype and not t.dtype.is_complex for b, t in zip(buffers, given, strict=True))
    few = len(given) <= fills.MOST_TENSORS and len(values) <= fills.MOST_NUMBERS
    if not alike or not few or not all(t.is_contiguous() for t in (*buffers, *given, numbers)):
        return False
    try:
        fills.launch(buffers, given, dims, numbers, values).run()
    except Exception as error:  # a kernel that does not compile must not cost the call
        _failed.append(error)
        tell(fill_at_once, error)
    return not _failed
