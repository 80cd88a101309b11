"""``kvfix::linear_few_rows``: linear layers on few rows, at the speed at which their weights can be read.

What takes time is the weights, so what matters is that some are on the way at any moment. Layers that read the same rows are
one launch. Where that leaves processors idle, the sums are cut into parts, which the consumer adds: always in the same order,
so the numbers are the same from run to run. And weights that nothing writes are fetched before the rows are there (`launch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch.library import custom_op

from .launch import Gpu, Launch, gpu, is_recording, wait, wake
from .products import MOST_PARTS

AT_ONCE = tl.constexpr(32)
"""So many columns of float32 the matrix units add up at once."""


@triton.jit
def _multiply(total, w, x, ROWS: tl.constexpr):
    """One row is multiplied and added; several are the narrow side of a matrix product, three in TF32 for one in float32.

    Matrix units cut off what they add up, so that a long sum in them is too small: columns that come in pieces are added here.
    """
    if ROWS == 1:
        total += w.to(tl.float32) * x.to(tl.float32)
    elif len(w.shape) == 3:
        total += tl.sum(tl.dot(w, x, input_precision="tf32x3"), 0)
    else:
        total = tl.dot(w, x, total, input_precision="tf32x3")
    return total


@triton.jit
def _fetch(pointers):
    """Bring what lies behind ``pointers``, one in each line of memory, into the L2 cache."""
    tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], tl.int32, False, 1)


@triton.jit(do_not_specialize=["early"])
def _kernel(
    x_ptr, w0, w1, w2, b0, b1, b2, y0, y1, y2, n0, n1, n2, second, third, blocks, rows, K, early,
    COUNT: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PART: tl.constexpr, AHEAD: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_N outputs of one layer for all rows, over PART of the K columns."""
    block, part = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    w_ptr, b_ptr, y_ptr, size, first = w0, b0, y0, n0, 0
    if COUNT > 1:
        if block >= second:
            w_ptr, b_ptr, y_ptr, size, first = w1, b1, y1, n1, second
    if COUNT > 2:
        if block >= third:
            w_ptr, b_ptr, y_ptr, size, first = w2, b2, y2, n2, third
    n = ((block - first) * BLOCK_N + tl.arange(0, BLOCK_N))[:, None]
    r = tl.arange(0, ROWS)[None, :]
    if ROWS > 1 and w_ptr.dtype.element_ty == tl.float32 and BLOCK_K > 2 * AT_ONCE:
        pieces = part * PART + tl.arange(0, BLOCK_K // AT_ONCE)[:, None, None] * AT_ONCE
        w_n, w_k = n[None, :, :], pieces + tl.arange(0, AT_ONCE)[None, None, :]
        x_r, x_k = r[None, :, :], pieces + tl.arange(0, AT_ONCE)[None, :, None]
    else:
        k = part * PART + tl.arange(0, BLOCK_K)
        w_n, w_k = n, k[None, :]
        x_r, x_k = r, k[None, :] if ROWS == 1 else k[:, None]
    w_ptrs = w_ptr + tl.minimum(w_n, size - 1) * K + w_k
    x_ptrs = x_ptr + x_k + x_r * K
    if DEPENDENT:
        wake()
        if early == 0:
            wait()
    w = tl.load(w_ptrs, w_k < K, 0.0, eviction_policy="evict_first")
    if AHEAD > 0:
        lines = tl.minimum(tl.arange(0, triton.next_power_of_2(AHEAD)), AHEAD - 1)
        ahead = part * PART + BLOCK_K + lines * (1024 // w_ptr.dtype.element_ty.primitive_bitwidth)
        _fetch(w_ptr + tl.minimum(n, size - 1) * K + tl.minimum(ahead, K - 1)[None, :])
    if DEPENDENT:
        wait()
    x = tl.load(x_ptrs, (x_r < rows) & (x_k < K), 0.0)
    total = _multiply(tl.zeros((BLOCK_N, BLOCK_K if ROWS == 1 else ROWS), tl.float32), w, x, ROWS)
    for done in range(BLOCK_K, PART, BLOCK_K):
        w = tl.load(w_ptrs + done, w_k + done < K, 0.0, eviction_policy="evict_first")
        x = tl.load(x_ptrs + done, (x_r < rows) & (x_k + done < K), 0.0)
        total = _multiply(total, w, x, ROWS)
    if ROWS == 1:
        total = tl.sum(total, 1, keep_dims=True)
    if BIAS:
        total += tl.load(b_ptr + n, n < tl.where(part == 0, size, 0), 0.0).to(tl.float32)
    tl.store(y_ptr + (part * rows + r) * size + n, total, (r < rows) & (n < size))


@custom_op("kvfix::linears_few_rows", mutates_args=())
def linears_few_rows(
    x: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], parts: int, early: bool
) -> list[torch.Tensor]:
    """``torch.nn.functional.linear`` of ``x`` with each of the ``weights``, the sums cut into ``parts``.

    Args:
        x: (..., in), float32, bfloat16 or float16, on CUDA, of few rows.
        weights: one to three, each (out, in), contiguous, same dtype.
        biases: (out,) for each of the weights, or none.
        parts: how many summands each result is given in; `best_parts` says what is fast.
        early: nothing in the graph writes the weights: they may be read before what precedes this op is done.

    Returns:
        (parts, ..., out) for each of the weights, contiguous, accumulated in float32: of the same dtype where there is one
        part, in float32 where they are yet to be added.
    """
    results = _empty(x, weights, parts)
    for step in launches(x.contiguous(), weights, biases, parts, early, results):
        step.run()
    return results


@linears_few_rows.register_fake
def _(
    x: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], parts: int, early: bool
) -> list[torch.Tensor]:
    return _empty(x, weights, parts)


@custom_op("kvfix::linear_few_rows", mutates_args=())
def linear_few_rows(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, parts: int, early: bool
) -> torch.Tensor:
    """The same for one layer, its result as a tensor."""
    (result,) = _empty(x, [weight], parts)
    for step in launches_of_one(x.contiguous(), weight, bias, parts, early, result):
        step.run()
    return result


@linear_few_rows.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, parts: int, early: bool) -> torch.Tensor:
    return _empty(x, [weight], parts)[0]


def _empty(x: torch.Tensor, weights: Sequence[torch.Tensor], parts: int) -> list[torch.Tensor]:
    dtype = x.dtype if parts == 1 else torch.float32
    return [x.new_empty((parts, *x.shape[:-1], w.shape[0]), dtype=dtype) for w in weights]


def launches_of_one(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    parts: int,
    early: bool,
    result: torch.Tensor | None = None,
) -> list[Launch]:
    """`launches` for one layer."""
    return launches(x, [weight], [] if bias is None else [bias], parts, early, None if result is None else [result])


def launches(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    parts: int,
    early: bool,
    results: Sequence[torch.Tensor] | None = None,
) -> list[Launch]:
    """The launch of the kernel, ``x`` contiguous; without ``results``, one that is only compiled."""
    k, size = x.shape[-1], x.element_size()
    rows = x.numel() // k
    device = gpu(x.device)
    tile = _tile(rows, [w.shape[0] for w in weights], k, size, device)
    counts = [triton.cdiv(w.shape[0], tile.outputs) for w in weights]
    part = triton.cdiv(triton.cdiv(k, parts), tile.columns) * tile.columns
    results = _empty(x, weights, parts) if results is None else results
    read = sum(w.numel() for w in weights) * size
    ahead = (part - tile.columns) * size // 128 if device.dependent and read <= device.cache // 2 else 0
    args = (x, *_three(weights), *_three(biases or weights), *_three(results), *_three([w.shape[0] for w in weights]))
    args += (counts[0], sum(counts[:2]), sum(counts), rows, k, int(early and is_recording(x.device)))
    options = {
        "COUNT": len(weights),
        "BIAS": len(biases) > 0,
        "ROWS": 1 if rows == 1 else max(8, triton.next_power_of_2(rows)),
        "BLOCK_N": tile.outputs,
        "BLOCK_K": tile.columns,
        "PART": part,
        "AHEAD": ahead,
        "num_warps": tile.warps,
        "num_stages": 3 if device.dependent else 2,  # others have less shared memory
    }
    return [Launch(_kernel, sum(counts) * parts, args, options | device.options)]


def _three(values: Sequence) -> tuple:
    return (*values, *[values[0]] * (3 - len(values)))


class Tile(NamedTuple):
    """How many outputs and columns a program takes at a time, and its warps; whether it takes no more columns."""

    outputs: int
    columns: int
    warps: int
    is_part: bool = False


def best_parts(rows: int, outputs: Sequence[int], k: int, element_size: int, device: Gpu) -> int:
    """In how many parts to cut the sums of layers with so many ``outputs``: one tile each where all tiles are fetched ahead,
    else one program for each processor, if the parts stay long enough to be read at full speed."""
    tile = _tile(rows, outputs, k, element_size, device)
    if tile.is_part:
        return min(triton.cdiv(k, tile.columns), MOST_PARTS)
    wanted = device.processors / sum(triton.cdiv(n, tile.outputs) for n in outputs)
    least = 1024 // element_size
    if rows == 1:
        wanted, least = max(2 * wanted, k / 4096), 2 * tile.columns
    part = max(round(k / max(wanted, 1) / tile.columns) * tile.columns, least)
    return min(triton.cdiv(k, part), MOST_PARTS)


def _tile(rows: int, outputs: Sequence[int], k: int, element_size: int, device: Gpu) -> Tile:
    """The fastest of those measured on an H100 for each kind of shape."""
    columns = max(16, triton.next_power_of_2(k))

    def blocks(size: int) -> int:
        return sum(triton.cdiv(n, size) for n in outputs)

    if rows == 1:
        return Tile(4, min(columns, 2048 // element_size), 4)
    if element_size == 2:
        return Tile(64, min(columns, 128 if blocks(64) >= 1.6 * device.processors else 256), 4)
    if blocks(128) >= 1.6 * device.processors:
        return Tile(128, min(columns, 64), 4)
    if blocks(32) > device.processors:
        return Tile(32, min(columns, 256), 4, is_part=True)
    return Tile(16, min(columns, 256), 2, is_part=True) if k < 2048 else Tile(16, 512, 4, is_part=True)
