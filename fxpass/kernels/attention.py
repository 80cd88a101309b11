"""``kvfix::decode_attention``: one query against the valid part of a cache, in one kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

from fxpass.graph.numbers import hint

from .launch import Launch


@triton.jit
def _kernel(
    q_ptr, k_ptr, v_ptr, length_ptr, mask_ptr, out_ptr,
    HEADS, GROUP, SIZE,
    q_b, q_h, q_d, k_b, k_h, k_s, k_d, v_b, v_h, v_s, v_d, m_b, m_h, m_s,
    SCALE: tl.constexpr, MASK: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: one head of one batch row, an online softmax over blocks of keys below the length."""
    pid = tl.program_id(0)
    b, h = pid // HEADS, pid % HEADS
    d = tl.arange(0, D)
    q = tl.load(q_ptr + b * q_b + h * q_h + d * q_d).to(tl.float32) * SCALE
    k_ptr += b * k_b + (h // GROUP) * k_h
    v_ptr += b * v_b + (h // GROUP) * v_h
    length = tl.minimum(tl.load(length_ptr), SIZE).to(tl.int32)
    top = tl.full((), float("-inf"), tl.float32)
    norm = tl.zeros((), tl.float32)
    out = tl.zeros((D,), tl.float32)
    for start in range(0, length, BLOCK):
        s = start + tl.arange(0, BLOCK)
        seen = s < length
        k = tl.load(k_ptr + s[:, None] * k_s + d[None, :] * k_d, seen[:, None], 0.0).to(tl.float32)
        score = tl.sum(q[None, :] * k, 1)
        if MASK == 1:
            seen = seen & (tl.load(mask_ptr + b * m_b + h * m_h + s * m_s, seen, 0) != 0)
        if MASK == 2:
            score += tl.load(mask_ptr + b * m_b + h * m_h + s * m_s, seen, 0.0).to(tl.float32)
        score = tl.where(seen, score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 0))
        safe = tl.where(new_top == float("-inf"), 0.0, new_top)
        weight = tl.exp(score - safe)
        fade = tl.exp(top - safe)
        v = tl.load(v_ptr + s[:, None] * v_s + d[None, :] * v_d, (s < length)[:, None], 0.0).to(tl.float32)
        out = out * fade + tl.sum(weight[:, None] * v, 0)
        norm = norm * fade + tl.sum(weight, 0)
        top = new_top
    tl.store(out_ptr + pid * D + d, out / tl.where(norm == 0.0, 1.0, norm))


@custom_op("kvfix::decode_attention", mutates_args=())
def decode_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    length: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Scaled dot product attention of one query over the first ``length`` keys.

    Args:
        q: (batch, heads, 1, dim) on CUDA, dim a power of two from 16 to 256.
        k, v: (batch, key heads, size, dim), same dtype; what lies at and after ``length`` is not read. Key heads divide
            heads.
        length: 0-d int64.
        mask: None, or broadcastable to (batch, heads, 1, size): bool (True is seen) or additive.
        scale: factor on the scores.

    Returns:
        (batch, heads, 1, dim), contiguous, same dtype, accumulated in float32; zeros where nothing is seen.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    launch(q, k, v, length, mask, scale, out).run()
    return out


def launch(
    q: Tensor, k: Tensor, v: Tensor, length: Tensor, mask: Tensor | None, scale: float, out: Tensor | None = None
) -> Launch:
    """The kernel's launch; without ``out``, one that is only compiled."""
    batch, heads, _, dim = q.shape
    size = hint(k.shape[2])
    seen = q if mask is None else mask.expand(batch, heads, 1, size)
    strides = (q.stride(0), q.stride(1), q.stride(3), *k.stride(), *v.stride())
    return Launch(
        _kernel,
        batch * heads,
        (q, k, v, length, seen, q if out is None else out, heads, heads // k.shape[1], size, *strides)
        + (seen.stride(0), seen.stride(1), seen.stride(3)),
        {
            "SCALE": scale,
            "MASK": 0 if mask is None else 1 if mask.dtype is torch.bool else 2,
            "D": dim,
            "BLOCK": max(16, min(triton.next_power_of_2(size), 8192 // dim)),
            "num_warps": 4,
        },
    )


@decode_attention.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    length: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    return q.new_empty(q.shape)
