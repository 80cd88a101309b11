"""One launch copies all tensors that grow, the inputs that are copied with them, and the numbers, into their buffers.

    buffer[:, :, :n] = x; other[:, :n] = mask; numbers[0] = n; ...

Tensors are moved as integers of their elements' size. A buffer may have more rows than what is put into it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

MOST_TENSORS = 4
MOST_NUMBERS = 8
MOST_ELEMENTS = 2**31 - 1
BLOCK = 1024
ALIGNED = 16
"""Bytes that addresses are multiples of, as Triton asks."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@triton.jit
def _copy(dst_ptr, src_ptr, total, part, whole, program, BLOCK: tl.constexpr):
    """Block ``program`` of ``total`` elements, in pieces of ``part`` that start ``whole`` apart in the target."""
    i = program * BLOCK + tl.arange(0, BLOCK)
    inside = i < total
    tl.store(dst_ptr + i // part * whole + i % part, tl.load(src_ptr + i, inside), inside)


@triton.jit(
    do_not_specialize=[
        "t0", "p0", "w0", "e0", "t1", "p1", "w1", "e1", "t2", "p2", "w2", "e2", "t3", "p3", "w3", "e3",
        "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7",
    ]
)  # fmt: skip
def _kernel(
    d0, s0, t0, p0, w0, e0, d1, s1, t1, p1, w1, e1, d2, s2, t2, p2, w2, e2, d3, s3, t3, p3, w3, e3,
    numbers, n0, n1, n2, n3, n4, n5, n6, n7, NUMBERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The programs below ``e0`` copy the first tensor, the next below ``e1`` the second, and so on; one writes numbers."""
    program = tl.program_id(0)
    if program < e0:
        _copy(d0, s0, t0, p0, w0, program, BLOCK)
    elif program < e1:
        _copy(d1, s1, t1, p1, w1, program - e0, BLOCK)
    elif program < e2:
        _copy(d2, s2, t2, p2, w2, program - e1, BLOCK)
    elif program < e3:
        _copy(d3, s3, t3, p3, w3, program - e2, BLOCK)
    if program == 0:
        if NUMBERS > 0:
            tl.store(numbers, n0.to(tl.int64))
        if NUMBERS > 1:
            tl.store(numbers + 1, n1.to(tl.int64))
        if NUMBERS > 2:
            tl.store(numbers + 2, n2.to(tl.int64))
        if NUMBERS > 3:
            tl.store(numbers + 3, n3.to(tl.int64))
        if NUMBERS > 4:
            tl.store(numbers + 4, n4.to(tl.int64))
        if NUMBERS > 5:
            tl.store(numbers + 5, n5.to(tl.int64))
        if NUMBERS > 6:
            tl.store(numbers + 6, n6.to(tl.int64))
        if NUMBERS > 7:
            tl.store(numbers + 7, n7.to(tl.int64))


def fill(
    buffers: Sequence[torch.Tensor], given: Sequence[torch.Tensor], dims: Sequence[int], numbers: torch.Tensor,
    values: Sequence[int],
) -> None:  # fmt: skip
    """Copy each of ``given`` to the beginning of its buffer along its dim, and ``values`` into ``numbers``.

    Args:
        buffers, given: up to `MOST_TENSORS` each, contiguous; a pair has one dtype, and the same sizes but along its dim.
        numbers: int64, of up to `MOST_NUMBERS` elements.
    """
    counts, end = [], 0
    for buffer, tensor, dim in zip(buffers, given, dims, strict=True):
        total, before = tensor.numel(), math.prod(tensor.shape[:dim]) or 1
        end -= -total // BLOCK
        counts.append((total, max(total // before, 1), max(buffer.numel() // before, 1), end))
    into, out_of, last = [b.data_ptr() for b in buffers], [t.data_ptr() for t in given], numbers.data_ptr()
    kinds = tuple([_INTEGERS[t.element_size()] for t in given])
    compiled = None
    if functools.reduce(operator.or_, (*into, *out_of, last)) % ALIGNED == 0 and all(-(2**31) <= v < 2**31 for v in values):
        compiled = _compiled(numbers.device, kinds, len(values))
    if compiled is None:
        into, out_of = [[t.view(k) for t, k in zip(of, kinds, strict=True)] for of in (buffers, given)]  # type: ignore
    args = [a for b, t, count in zip(into, out_of, counts, strict=True) for a in (b, t, *count)]
    args += [*args[:2], 0, 1, 1, end] * (MOST_TENSORS - len(given))
    args += [numbers if compiled is None else last, *values, *[0] * (MOST_NUMBERS - len(values))]
    with on(numbers.device):
        if compiled is None:
            _kernel[(max(end, 1),)](*args, NUMBERS=len(values), BLOCK=BLOCK)
        else:
            compiled[max(end, 1), 1, 1](*args, len(values), BLOCK)


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A block in which kernels are launched on ``device``, and on its current stream."""
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    return torch.cuda.device(device) if elsewhere else contextlib.nullcontext()


@functools.cache
def _compiled(device: torch.device, kinds: tuple[torch.dtype, ...], numbers: int) -> Any:
    """The kernel for addresses that are `ALIGNED`, and numbers of 32 bits; None where Triton interprets it.

    It is launched with addresses alone. Triton would take longer to find it for the arguments of a call than to launch it.
    """
    if not isinstance(_kernel, triton.JITFunction):
        return None
    args = [a for kind in (*kinds, *kinds[:1] * (MOST_TENSORS - len(kinds))) for a in (kind, kind, 2, 2, 2, 2)]
    with torch.cuda.device(device):
        compiled = _kernel.warmup(*args, torch.int64, *[2] * MOST_NUMBERS, grid=(1,), NUMBERS=numbers, BLOCK=BLOCK)
        compiled.run  # noqa: B018  (a property that loads it)
    return compiled
