"""``kvfix::linear_few_rows``: a linear layer on at most eight rows, at the speed at which its weights can be read."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.library import custom_op

from .launch import Launch


@triton.jit
def _kernel(
    x_ptr, w_ptr, b_ptr, y_ptr, ROWS, N, K,
    HAS_BIAS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_N outputs of all rows. The weights stream through once, the rows stay in the cache."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    r = tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R, BLOCK_N, BLOCK_K), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        w = tl.load(w_ptr + n[:, None] * K + k[None, :], (n[:, None] < N) & (k[None, :] < K), 0.0,
                    eviction_policy="evict_first")  # fmt: skip
        x = tl.load(x_ptr + r[:, None] * K + k[None, :], (r[:, None] < ROWS) & (k[None, :] < K), 0.0,
                    eviction_policy="evict_last")  # fmt: skip
        total += x.to(tl.float32)[:, None, :] * w.to(tl.float32)[None, :, :]
    y = tl.sum(total, 2)
    if HAS_BIAS:
        y += tl.load(b_ptr + n, n < N, 0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + r[:, None] * N + n[None, :], y, (r[:, None] < ROWS) & (n[None, :] < N))


@custom_op("kvfix::linear_few_rows", mutates_args=())
def linear_few_rows(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``torch.nn.functional.linear`` for ``x`` of at most eight rows.

    Args:
        x: (..., in), float32, bfloat16 or float16, on CUDA.
        weight: (out, in), contiguous, same dtype.
        bias: (out,) or None.

    Returns:
        (..., out), contiguous, same dtype, accumulated in float32.
    """
    x = x.contiguous()
    y = torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)
    launch(x, weight, bias, y).run()
    return y


def launch(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor | None = None) -> Launch:
    """The kernel's launch; without ``y``, one that is only compiled."""
    n, k = weight.shape
    rows = x.numel() // k
    block_n, block_k, warps, stages = _blocks(rows, n, k)
    return Launch(
        _kernel,
        triton.cdiv(n, block_n),
        (x, weight, weight if bias is None else bias, x if y is None else y, rows, n, k),
        {
            "HAS_BIAS": bias is not None,
            "BLOCK_R": max(1, triton.next_power_of_2(rows)),
            "BLOCK_N": block_n,
            "BLOCK_K": block_k,
            "num_warps": warps,
            "num_stages": stages,
        },
    )


@linear_few_rows.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _blocks(rows: int, n: int, k: int) -> tuple[int, int, int, int]:
    """(BLOCK_N, BLOCK_K, warps, stages), the best of fifteen measured on an H100 for each kind of shape."""
    if rows == 1:
        return (1, 1024, 4, 2) if n <= 1024 else (2, 512, 4, 3) if n <= 4096 else (2, 256, 2, 3)
    if k >= 2048:
        return (2, 512, 4, 3)
    if n <= 1024:
        return (2, 256, 2, 3)
    if n <= 4096:
        return (2, 128, 1, 3)
    return (8, 64, 4, 4) if n <= 16384 else (16, 32, 4, 4)
