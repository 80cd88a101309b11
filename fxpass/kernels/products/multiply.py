"""One step of the products: a tile of weights times few rows is added to a total, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

AT_ONCE = tl.constexpr(32)
"""The matrix units add up this many columns of float32 at once."""


@triton.jit
def multiply(total, w, x, ROWS: tl.constexpr, HOPPER: tl.constexpr):
    """``total`` plus the products of the weights ``w`` and the rows ``x``.

    A single row is multiplied and added without the matrix units. Matrix units round toward zero when they add, so that long
    sums in them come out too small: the sums of float32 pieces are therefore added here.
    """
    if ROWS == 1:
        total += w.to(tl.float32) * x.to(tl.float32)
    elif w.dtype != tl.float32:
        total = tl.dot(w, x, total)
    elif len(w.shape) == 3:
        total += tl.sum(_product(w, x, HOPPER), 0)
    else:
        total += _product(w, x, HOPPER)
    return total


@triton.jit
def _product(w, x, HOPPER: tl.constexpr):
    """``w @ x`` in float32 as three products in TF32: of both rounded, and of each rounded with the rest of the other.

    Triton does the same with nine instructions for each number, which older GPUs have, too. From Hopper on, one instruction
    rounds and one subtracts, and the matrix units cut off the last bits of the rest, which has either sign. An infinite number
    leaves NaN, which is not added.
    """
    if not HOPPER:
        return tl.dot(w, x, input_precision="tf32x3")
    w_high, x_high = _rounded(w), _rounded(x)
    rest = tl.dot(w - w_high, x_high, input_precision="tf32")
    rest = tl.dot(w_high, x - x_high, rest, input_precision="tf32")
    return tl.dot(w_high, x_high, tl.where(rest == rest, rest, 0.0), input_precision="tf32")


@triton.jit
def _rounded(x):
    """``x`` rounded to TF32."""
    return tl.inline_asm_elementwise("cvt.rn.tf32.f32 $0, $1;", "=r,r", [x], tl.float32, True, 1)
