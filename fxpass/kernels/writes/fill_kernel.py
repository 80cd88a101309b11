"""One launch copies all tensors that grow, the inputs that are copied with them, and the numbers, into their buffers.

    buffer[:, :, :n] = x; other[:, :n] = mask; numbers[0] = n; ...

Tensors are moved as integers of their elements' size. A buffer may have more rows than what is put into it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from triton.runtime import driver

MOST_TENSORS = 4
MOST_NUMBERS = 8
MOST_ELEMENTS = 2**31 - 1
BLOCK = 1024
ALIGNED = 16
"""Bytes that addresses are multiples of, as Triton asks."""

_FIRST_NUMBER = 6 * MOST_TENSORS + 1
"""The place of the first number among the kernel's arguments."""
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


class BufferFill:
    """One launch that copies tensors to the beginning of ``buffers``, each along its dim, and numbers into ``numbers``.

    What is the same in all calls is worked out once, since the device may wait for the launch. The buffers are not held.

    Args:
        buffers: up to `MOST_TENSORS`, contiguous.
        dims: the dim of each along which it may be longer than what is put into it.
        numbers: int64, contiguous, of up to `MOST_NUMBERS` elements.
    """

    def __init__(self, buffers: Sequence[torch.Tensor], dims: Sequence[int], numbers: torch.Tensor) -> None:
        self._numbers, self._device = numbers, numbers.device
        self._kinds = tuple(_INTEGERS[b.element_size()] for b in buffers)
        self._pieces = [(b.dtype, math.prod(b.shape[:dim]) or 1) for b, dim in zip(buffers, dims, strict=True)]
        into = [b.data_ptr() for b in buffers]
        self._args: list[int] = []
        for address, buffer, (_, pieces) in zip(into, buffers, self._pieces, strict=True):
            self._args += [address, 0, 0, 1, buffer.numel() // pieces or 1, 0]
        self._args += [into[0], into[0], 0, 1, 1, 0] * (MOST_TENSORS - len(into)) + [numbers.data_ptr()] + [0] * MOST_NUMBERS
        aligned = functools.reduce(operator.or_, into, numbers.data_ptr()) % ALIGNED == 0
        self._launch = _launcher(self._device, self._kinds, len(numbers)) if aligned else None

    def __call__(self, buffers: Sequence[torch.Tensor], given: Sequence[torch.Tensor], values: Sequence[int]) -> bool:
        """Copy ``given``, each of the sizes of its buffer but along its dim, and ``values``, one for each number.

        Returns whether that was done. Nothing is done if a tensor has another dtype than its buffer, or is not contiguous.
        """
        args, end, place, addresses = self._args, 0, 1, 0
        for tensor, (dtype, pieces) in zip(given, self._pieces, strict=True):
            if tensor.dtype is not dtype or not tensor.is_contiguous():
                return False
            address, total = tensor.data_ptr(), tensor.numel()
            addresses |= address
            end -= -total // BLOCK
            args[place], args[place + 1], args[place + 2], args[place + 4] = address, total, total // pieces or 1, end
            place += 6
        args[_FIRST_NUMBER : _FIRST_NUMBER + len(values)] = values
        with on(self._device):
            if self._launch is None or addresses % ALIGNED:
                self._launch_any(buffers, given, end)
            else:
                self._launch(end or 1, args)
        return True

    def _launch_any(self, buffers: Sequence[torch.Tensor], given: Sequence[torch.Tensor], programs: int) -> None:
        """Launch it as Triton does, for tensors at any addresses."""
        args: list[Any] = list(self._args)
        pairs = [(b.view(kind), t.view(kind)) for b, t, kind in zip(buffers, given, self._kinds, strict=True)]
        for i in range(MOST_TENSORS):
            args[6 * i], args[6 * i + 1] = pairs[i] if i < len(pairs) else pairs[0]
        args[_FIRST_NUMBER - 1] = self._numbers
        _kernel[(programs or 1,)](*args, NUMBERS=len(self._numbers), BLOCK=BLOCK)


def on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """A block in which kernels are launched on ``device``, and on its current stream."""
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    return torch.cuda.device(device) if elsewhere else contextlib.nullcontext()


@functools.cache
def _launcher(device: torch.device, kinds: tuple[torch.dtype, ...], numbers: int) -> Callable[[int, list[int]], None] | None:
    """A function that launches the kernel, on so many programs, with addresses that are `ALIGNED`, and ints; None where Triton
    interprets it.

    Triton would take longer to find the kernel for the arguments of a call than to launch it.
    """
    if not isinstance(_kernel, triton.JITFunction):
        return None
    args = [a for kind in (*kinds, *kinds[:1] * (MOST_TENSORS - len(kinds))) for a in (kind, kind, 2, 2, 2, 2)]
    with torch.cuda.device(device):
        compiled = _kernel.warmup(*args, torch.int64, *[2**40] * MOST_NUMBERS, grid=(1,), NUMBERS=numbers, BLOCK=BLOCK)
        run = compiled.run  # loads it
    function, packed, stream_of = compiled.function, compiled.packed_metadata, driver.active.get_current_stream
    index = torch.cuda.current_device() if device.index is None else device.index

    def launch(programs: int, args: list[int]) -> None:
        run(programs, 1, 1, stream_of(index), function, packed, None, None, None, *args, numbers, BLOCK)

    return launch
