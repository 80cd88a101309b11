"""Elements of a dtype that lacks operators are moved as integers of the same size.

    index_copy_(buf, 1, slots, k)               index_copy_(view(buf, int16), 1, slots, view(k, int16))         uint16
                                                index_put_(buf, [None, slots], k)                               float8
    where(valid, k, 0)                ->        view(where(valid, view(k, uint8), 0), float8)

PyTorch does not have `index_copy_`, `index_select` and `where` on every device for 8-bit floats, unsigned integers of several
bytes and complex numbers of half precision. Rows of 8-bit floats are put in as they are: Inductor stores a single byte
in a buffer of floats as the number that it is.
"""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_COMPLETE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16}
_COMPLETE |= {torch.float32, torch.float64, torch.complex64, torch.complex128}

_PUT = {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}


def is_put(dtype: torch.dtype) -> bool:
    """Whether rows of ``dtype`` are put in by `index_put`, which has no other dtype for them."""
    return dtype in _PUT


def moved_as(dtype: torch.dtype) -> torch.dtype:
    """The dtype that elements of ``dtype`` are moved in: ``dtype`` itself if it has all operators."""
    return dtype if dtype in _COMPLETE else _INTEGERS.get(dtype.itemsize, dtype)


def moved_number(value: Any, dtype: torch.dtype) -> Any:
    """The number ``value``, of ``dtype``, as the number of the same bits in the dtype that elements are moved in."""
    return value if moved_as(dtype) is dtype else torch.tensor(value).to(dtype).view(moved_as(dtype)).item()
