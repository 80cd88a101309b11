"""``kvfix::linear_few_rows``: linear layers on few rows, at the speed at which their weights can be read.

Nearly all of the time is spent on reading the weights, so some of them must be on their way at any moment. Layers of the same
rows are one launch. Where that leaves processors idle, the sums are cut into parts. The consumer adds the parts, always in the
same order, so that two runs give the same numbers. Weights that no op of the graph writes are fetched before the rows have been
computed (see `launch`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch.library import custom_op

from fxpass.kernels.functions.pointwise import NAMES, function
from fxpass.kernels.launches.launch import Launch, fetch, gpu, is_recording, wait, wake
from fxpass.kernels.launches.limits import MAX_ROWS_AT_ONCE

from .multiply import AT_ONCE, multiply
from .tiles import gated_tile, tile_of


@triton.jit(do_not_specialize=["early"])
def _kernel(
    x_ptr, w0, w1, w2, b0, b1, b2, y0, y1, y2, n0, n1, n2, second, third, blocks, rows, K, early,
    COUNT: tl.constexpr, BIAS: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    PART: tl.constexpr, PARTS: tl.constexpr, GROUPS: tl.constexpr, AHEAD: tl.constexpr, GATE: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program computes BLOCK_N outputs of one layer for all rows, or for one of GROUPS of them, over PART of the K columns.
    With a GATE, it stores what that computes from the outputs of the first layer, or from those of the first and the second."""
    block, part = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    PAIR: tl.constexpr = GATE is not None and COUNT == 2
    w_ptr, b_ptr, y_ptr, size, first = w0, b0, y0, n0, 0
    if COUNT > 1 and not PAIR:
        if block >= second:
            w_ptr, b_ptr, y_ptr, size, first = w1, b1, y1, n1, second
    if COUNT > 2:
        if block >= third:
            w_ptr, b_ptr, y_ptr, size, first = w2, b2, y2, n2, third
    n = ((block - first) * BLOCK_N + tl.arange(0, BLOCK_N))[:, None]
    r = tl.arange(0, ROWS)[None, :]
    if GROUPS > 1:
        part, r = part % PARTS, part // PARTS * ROWS + r
    if ROWS > 1 and w_ptr.dtype.element_ty == tl.float32 and BLOCK_K > 2 * AT_ONCE:
        pieces = part * PART + tl.arange(0, BLOCK_K // AT_ONCE)[:, None, None] * AT_ONCE
        w_n, w_k = n[None, :, :], pieces + tl.arange(0, AT_ONCE)[None, None, :]
        x_r, x_k = r[None, :, :], pieces + tl.arange(0, AT_ONCE)[None, :, None]
    else:
        k = part * PART + tl.arange(0, BLOCK_K)
        w_n, w_k = n, k[None, :]
        x_r, x_k = r, k[None, :] if ROWS == 1 else k[:, None]
    w_ptrs = w_ptr + tl.minimum(w_n, size - 1) * K + w_k
    v_ptrs = w1 + tl.minimum(w_n, size - 1) * K + w_k
    x_ptrs = x_ptr + x_k + x_r * K
    if DEPENDENT:
        wake()
        if early == 0:
            wait()
    w = tl.load(w_ptrs, w_k < K, 0.0, eviction_policy="evict_first")
    if PAIR:
        v = tl.load(v_ptrs, w_k < K, 0.0, eviction_policy="evict_first")
    if BIAS:
        bias = tl.load(b_ptr + n, n < tl.where(part == 0, size, 0), 0.0).to(tl.float32)
        if PAIR:
            other_bias = tl.load(b1 + n, n < size, 0.0).to(tl.float32)
    if AHEAD > 0:
        lines = tl.minimum(tl.arange(0, triton.next_power_of_2(AHEAD)), AHEAD - 1)
        ahead = part * PART + BLOCK_K + lines * (1024 // w_ptr.dtype.element_ty.primitive_bitwidth)
        fetch(w_ptr + tl.minimum(n, size - 1) * K + tl.minimum(ahead, K - 1)[None, :])
        if PAIR:
            fetch(w1 + tl.minimum(n, size - 1) * K + tl.minimum(ahead, K - 1)[None, :])
    if DEPENDENT:
        wait()
    x = tl.load(x_ptrs, (x_r < rows) & (x_k < K), 0.0)
    zero = tl.zeros((BLOCK_N, BLOCK_K if ROWS == 1 else ROWS), tl.float32)
    total = multiply(zero, w, x, ROWS, DEPENDENT)
    if PAIR:
        other = multiply(zero, v, x, ROWS, DEPENDENT)
    for done in range(BLOCK_K, PART, BLOCK_K):
        w = tl.load(w_ptrs + done, w_k + done < K, 0.0, eviction_policy="evict_first")
        x = tl.load(x_ptrs + done, (x_r < rows) & (x_k + done < K), 0.0)
        total = multiply(total, w, x, ROWS, DEPENDENT)
        if PAIR:
            v = tl.load(v_ptrs + done, w_k + done < K, 0.0, eviction_policy="evict_first")
            other = multiply(other, v, x, ROWS, DEPENDENT)
    if ROWS == 1:
        total = tl.sum(total, 1, keep_dims=True)
    if BIAS:
        total += bias
    if PAIR:
        if ROWS == 1:
            other = tl.sum(other, 1, keep_dims=True)
        total = GATE(total, other + other_bias if BIAS else other)
    elif GATE is not None:
        total = GATE(total)
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
        parts: the number of summands that each result is given as; `tiles.best_parts` says which number is fast.
        early: whether no op of the graph writes the weights and biases: they are then read before the preceding ops are done.

    Returns:
        (parts, ..., out) for each of the weights, contiguous, accumulated in float32. The dtype is that of ``x`` where there is
        one part, and float32 where there are several to add.
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
    """`linears_few_rows` of one layer. The result is a tensor, not a list."""
    (result,) = _empty(x, [weight], parts)
    for step in launches_of_one(x.contiguous(), weight, bias, parts, early, result):
        step.run()
    return result


@linear_few_rows.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, parts: int, early: bool) -> torch.Tensor:
    return _empty(x, [weight], parts)[0]


@custom_op("kvfix::gated_few_rows", mutates_args=())
def gated_few_rows(
    x: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], gate: str, early: bool
) -> torch.Tensor:
    """A function of one or two linear layers of ``x``, with its text as ``gate`` (see `pointwise`); all else is as in
    `linears_few_rows`.

    Args:
        weights: one or two of the same shape.

    Returns:
        (..., out), contiguous, of the dtype of ``x``.
    """
    (result,) = _empty(x, weights[:1], 1)
    for step in launches_of_gated(x.contiguous(), weights, biases, gate, early, result):
        step.run()
    return result[0]


@gated_few_rows.register_fake
def _(
    x: torch.Tensor, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], gate: str, early: bool
) -> torch.Tensor:
    return _empty(x, weights[:1], 1)[0][0]


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


def launches_of_gated(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    gate: str,
    early: bool,
    result: torch.Tensor | None = None,
) -> list[Launch]:
    """`launches` for a function of layers."""
    return launches(x, weights, biases, 1, early, None if result is None else [result] * len(weights), gate)


def launches(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    parts: int,
    early: bool,
    results: Sequence[torch.Tensor] | None = None,
    gate: str | None = None,
) -> list[Launch]:
    """The launch of the kernel, for a contiguous ``x``. Without ``results`` it is made to be compiled, not to be run."""
    k, size = x.shape[-1], x.element_size()
    rows = x.numel() // k
    device = gpu(x.device)
    outputs = [w.shape[0] for w in weights]
    tile = (tile_of if gate is None else gated_tile)(rows, outputs, k, size, device)
    counts = [triton.cdiv(n, tile.outputs) for n in outputs[: len(outputs) if gate is None else 1]]
    at_once = 1 if rows == 1 else min(max(8, triton.next_power_of_2(rows)), MAX_ROWS_AT_ONCE)
    groups = triton.cdiv(rows, at_once)
    part = triton.cdiv(triton.cdiv(k, parts), tile.columns) * tile.columns
    results = _empty(x, weights, parts) if results is None else results
    read = sum(w.numel() for w in weights) * size
    ahead = (part - tile.columns) * size // 128 if device.dependent and read <= device.cache // 2 else 0
    args = (x, *_three(weights), *_three(biases or weights), *_three(results), *_three(outputs))
    args += (counts[0], sum(counts[:2]), sum(counts), rows, k, int(early and is_recording(x.device)))
    options = {
        "COUNT": len(weights),
        "BIAS": len(biases) > 0,
        "ROWS": at_once,
        "BLOCK_N": tile.outputs,
        "BLOCK_K": tile.columns,
        "PART": part,
        "PARTS": parts,
        "GROUPS": groups,
        "AHEAD": ahead,
        "GATE": None if gate is None else function(gate, tuple(NAMES[: len(weights)])),
        "num_warps": tile.warps,
        "num_stages": 3 if device.dependent else 2,  # others have less shared memory
    }
    if tile.registers and device.dependent:
        options["maxnreg"] = tile.registers
    return [Launch(_kernel, sum(counts) * parts * groups, args, options | device.options)]


def _three(values: Sequence) -> tuple:
    return (*values, *[values[0]] * (3 - len(values)))
