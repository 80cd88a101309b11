"""``kvfix::write_rows``: an indexed write into a buffer, in place.

``index_copy_`` on a part of an input (one layer of a stacked cache) is made functional by AOTAutograd and not made
in-place again: whole buffers are copied. An opaque operator that declares what it mutates is called on the view itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.library import custom_op

from fxpass.kernels.launches.launch import Launch, gpu, wait, wake


@triton.jit
def _kernel(
    dst_ptr, src_ptr, slots_ptr, total, rows, n1, n2, n3,
    d0, d1, d2, d3, s0, s1, s2, s3,
    DIM: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program copies BLOCK elements of the source, of four dims. The slots give their places along dim DIM of the target.
    An element whose slot is not a row of the target is not stored."""
    if DEPENDENT:
        wake()
        wait()
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < total
    i3 = i % n3
    i2 = (i // n3) % n2
    i1 = (i // (n3 * n2)) % n1
    i0 = i // (n3 * n2 * n1)
    value = tl.load(src_ptr + i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3, inside)
    if DIM == 0:
        i0 = tl.load(slots_ptr + i0, inside, 0)
        inside = inside & (i0 >= 0) & (i0 < rows)
    if DIM == 1:
        i1 = tl.load(slots_ptr + i1, inside, 0)
        inside = inside & (i1 >= 0) & (i1 < rows)
    if DIM == 2:
        i2 = tl.load(slots_ptr + i2, inside, 0)
        inside = inside & (i2 >= 0) & (i2 < rows)
    if DIM == 3:
        i3 = tl.load(slots_ptr + i3, inside, 0)
        inside = inside & (i3 >= 0) & (i3 < rows)
    tl.store(dst_ptr + i0 * d0 + i1 * d1 + i2 * d2 + i3 * d3, value, inside)


@custom_op("kvfix::write_rows", mutates_args={"buffer"})
def write_rows(buffer: torch.Tensor, dim: int, slots: torch.Tensor, source: torch.Tensor) -> None:
    """``buffer.index_copy_(dim, slots, source)`` for slots within the buffer. Rows with another slot are not written.

    Args:
        buffer: up to four dims, any strides, on CUDA.
        dim: the indexed dim, not negative.
        slots: 1-d int64, as long as ``source.shape[dim]``.
        source: the shape of ``buffer`` but for ``dim``, same dtype.
    """
    for step in launches(buffer, dim, slots, source):
        step.run()


def launches(buffer: torch.Tensor, dim: int, slots: torch.Tensor, source: torch.Tensor) -> list[Launch]:
    """The launch of the kernel."""
    pad = 4 - buffer.dim()
    sizes = [1] * pad + list(source.shape)
    strides = (*([0] * pad), *buffer.stride(), *([0] * pad), *source.stride())
    args = (buffer, source, slots, source.numel(), buffer.shape[dim], *sizes[1:], *strides)
    options = {"DIM": dim + pad, "BLOCK": 256, "num_warps": 2, **gpu(buffer.device).options}
    return [Launch(_kernel, triton.cdiv(source.numel(), 256), args, options)]
