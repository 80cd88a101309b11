"""How tensors lie in memory, as far as their sizes and strides are known. No guard is added.

    [2, 8, 4], strides (32, 4, 1)       contiguous              order (0, 1, 2)
    [2, 8, 4], strides (32, 1, 8)       dense, rows last        order (0, 2, 1)
    [2, 8, 4], strides (64, 4, 1)       a slice                 None
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .numbers import equal, hint


def is_contiguous(value: torch.Tensor) -> bool:
    """Whether ``value`` is known to have the strides of a contiguous tensor, along dims of size 1 too."""
    stride: Any = 1
    for dim in reversed(range(value.dim())):
        if not equal(value.stride(dim), stride):
            return False
        stride = stride * value.shape[dim]
    return True


def dense_order(value: Any) -> tuple[int, ...] | None:
    """The dims of ``value`` from the outermost to the innermost, in their own order if that fits; None if it is not known to
    be dense, or is no tensor. The strides of dims of size 1 tell nothing."""
    if not isinstance(value, torch.Tensor):
        return None
    steps = [(hint(value.stride(d)), hint(value.shape[d])) for d in range(value.dim())]
    if any(None in step for step in steps):
        return None
    by_stride = sorted(range(value.dim()), key=steps.__getitem__, reverse=True)
    return next((tuple(dims) for dims in (range(value.dim()), by_stride) if _is_dense(value, dims)), None)


def _is_dense(value: torch.Tensor, order: Sequence[int]) -> bool:
    stride: Any = 1
    for dim in reversed(order):
        if not equal(value.shape[dim], 1) and not equal(value.stride(dim), stride):
            return False
        stride = stride * value.shape[dim]
    return True
