"""The programs of `attention`: one computes a part of the keys as an online softmax, another one joins the parts."""

from __future__ import annotations

import triton
import triton.language as tl

from fxpass.kernels.launches.launch import fetch, wait, wake

GRAIN = tl.constexpr(32)
"""The number of keys in a part is a multiple of this, whatever the size of the buffer: few keys are several parts, too."""


@triton.jit(do_not_specialize=["early"], do_not_specialize_on_alignment=["length_ptr", "slot_ptr"])
def attend(
    q_ptr, k_ptr, v_ptr, length_ptr, mask_ptr, out_ptr, top_ptr, norm_ptr,
    KEY_HEADS, GROUP, QUERIES, SIZE, tiles,
    q_b, q_h, q_s, q_d, k_b, k_h, k_s, k_d, v_b, v_h, v_s, v_d, m_b, m_h, m_q, m_s,
    p0, p1, p2, p3, p4, p5, p6, p7, slot_ptr, early,
    QUERY: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr,
    SCALE: tl.constexpr, MASK: tl.constexpr, CAUSAL: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    PARTS: tl.constexpr, ONCE: tl.constexpr, LINES: tl.constexpr, WHOLE: tl.constexpr, NANS: tl.constexpr,
    PRECISION: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program computes ROWS queries over one part of the valid keys, as an online softmax over blocks of keys.

    Its queries are of all the heads that share one key head of one batch row. In both matrix products the keys are the long
    side and the queries the narrow one. With a QUERY, the program computes the query, and its KEY and VALUE, of elements of the
    tensors p0 to p7. The first program of a key head writes the row. Each program uses the row that it has computed, and
    does not read it from the cache.
    """
    pid = tl.program_id(0)
    part, tile, key_head = pid % PARTS, pid // PARTS % tiles, pid // PARTS // tiles % KEY_HEADS
    b = pid // PARTS // tiles // KEY_HEADS
    row = tile * ROWS + tl.arange(0, ROWS)
    inside = row < GROUP * QUERIES
    head, query = key_head * GROUP + row // QUERIES, row % QUERIES
    d = tl.arange(0, D)
    q_ptrs = q_ptr + b * q_b + (head * q_h + query * q_s)[None, :] + d[:, None] * q_d
    k_ptr += b * k_b + key_head * k_h
    v_ptr += b * v_b + key_head * v_h
    mask_ptr += b * m_b
    if DEPENDENT:
        wake()
        if ONCE and QUERY is None:
            key = tl.minimum(tl.arange(0, BLOCK), SIZE - 1)[:, None]
            line = tl.arange(0, LINES)[None, :] * (1024 // k_ptr.dtype.element_ty.primitive_bitwidth)
            fetch(k_ptr + key * k_s + line * k_d)
            fetch(v_ptr + key * v_s + line * v_d)
        if not ONCE or QUERY is None or early == 0:
            wait()
    if ONCE and QUERY is not None:
        s = tl.arange(0, BLOCK)
        all_k = tl.load(k_ptr + s[:, None] * k_s + d[None, :] * k_d, (s < SIZE)[:, None], 0.0)
        all_v = tl.load(v_ptr + s[None, :] * v_s + d[:, None] * v_d, (s < SIZE)[None, :], 0.0)
        if DEPENDENT:
            wait()
    if QUERY is not None:
        slot = tl.load(slot_ptr)
        one = tl.where(inside, head, key_head * GROUP)[None, :]
        q = QUERY(p0, p1, p2, p3, p4, p5, p6, p7, b, one, 0, d[:, None]).to(k_ptr.dtype.element_ty).to(tl.float32)
        new_k = KEY(p0, p1, p2, p3, p4, p5, p6, p7, b, key_head, 0, d[None, :]).to(k_ptr.dtype.element_ty)
        new_v = VALUE(p0, p1, p2, p3, p4, p5, p6, p7, b, key_head, 0, d[:, None]).to(v_ptr.dtype.element_ty)
        written = tl.where((slot >= 0) & (slot < SIZE) & (part + tile == 0), D, 0)
        tl.store(k_ptr + slot * k_s + d[None, :] * k_d, new_k, (d < written)[None, :])
        tl.store(v_ptr + slot * v_s + d[:, None] * v_d, new_v, (d < written)[:, None])
    else:
        q = tl.load(q_ptrs, inside[None, :], 0.0).to(tl.float32)
    length = SIZE if WHOLE else tl.minimum(tl.load(length_ptr), SIZE).to(tl.int32)
    long = tl.cdiv(tl.cdiv(length, GRAIN), PARTS) * GRAIN
    end = tl.minimum(length, (part + 1) * long)
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    norm = tl.zeros((ROWS,), tl.float32)
    out = tl.zeros((D, ROWS), tl.float32)
    first, last, there = part * long, end, end
    if ONCE:
        first, last, there = 0, 1, SIZE
    for start in range(first, last, BLOCK):
        s = start + tl.arange(0, BLOCK)
        if ONCE and QUERY is not None:
            k, v = all_k, all_v
        else:
            k = tl.load(k_ptr + s[:, None] * k_s + d[None, :] * k_d, (s < there)[:, None], 0.0)
            v = tl.load(v_ptr + s[None, :] * v_s + d[:, None] * v_d, (s < there)[None, :], 0.0)
        if QUERY is not None:
            k = tl.where((s == slot)[:, None], new_k, k)
            v = tl.where((s == slot)[None, :], new_v, v)
        k, v = k.to(tl.float32), v.to(tl.float32)
        if ONCE:
            v = tl.where((s < end)[None, :], v, 0.0)
        seen = (s < end)[:, None] & inside[None, :]
        if CAUSAL:
            seen = seen & (s[:, None] <= query[None, :])
        score = _product(k, q, tl.zeros((BLOCK, ROWS), tl.float32), PRECISION) * SCALE
        m_ptrs = mask_ptr + s[:, None] * m_s + (head * m_h + query * m_q)[None, :]
        if MASK == 1:
            seen = seen & (tl.load(m_ptrs, seen, 0) != 0)
        if MASK == 2:
            score += tl.load(m_ptrs, seen, 0.0).to(tl.float32)
        score = tl.where(seen, score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 0))
        safe = tl.where(new_top == float("-inf"), 0.0, new_top)
        weight = tl.exp(score - safe[None, :])
        fade = tl.exp(top - safe)
        out = _product(v, weight, out * fade[None, :], PRECISION)
        norm = norm * fade + tl.sum(weight, 0)
        top = new_top
    at = (b * KEY_HEADS * GROUP + head) * QUERIES + query
    if PARTS == 1:
        out = _divided(out, norm[None, :], length, NANS)
    else:
        at += part * (tl.num_programs(0) // PARTS // tiles * GROUP * QUERIES)
        tl.store(top_ptr + at, top, inside)
        tl.store(norm_ptr + at, norm, inside)
        inside = inside & (top > float("-inf"))
    tl.store(out_ptr + at[None, :] * D + d[:, None], out, inside[None, :])


@triton.jit
def _product(a, b, total, PRECISION: tl.constexpr):
    """``total + a @ b``. Where ``b`` is a single column, it is computed without the matrix units."""
    if b.shape[1] == 1:
        return total + tl.sum(a * tl.trans(b), 1, keep_dims=True)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _divided(out, norm, length, NANS: tl.constexpr):
    """``out / norm``. A query that sees no key gets zeros; with NANS, if there are keys, NaN, as a softmax over -inf gives."""
    out = out / tl.where(norm == 0.0, 1.0, norm)
    if NANS:
        out = tl.where((norm == 0.0) & (length > 0), float("nan"), out)
    return out


@triton.jit(do_not_specialize_on_alignment=["length_ptr"])
def join(
    part_ptr, top_ptr, norm_ptr, length_ptr, out_ptr,
    D: tl.constexpr, PARTS: tl.constexpr, ROUND: tl.constexpr, WHOLE: tl.constexpr, NANS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program joins the parts of one query of one head. The largest score of a part gives its weight."""
    if DEPENDENT:
        wake()
        wait()
    row, rows = tl.program_id(0), tl.num_programs(0)
    part = tl.arange(0, ROUND)
    d = tl.arange(0, D)
    top = tl.load(top_ptr + part * rows + row, part < PARTS, float("-inf"))
    norm = tl.load(norm_ptr + part * rows + row, part < PARTS, 0.0)
    highest = tl.max(top, 0)
    weight = tl.exp(top - tl.where(highest == float("-inf"), 0.0, highest))
    filled = (top > float("-inf"))[:, None]
    out = tl.load(part_ptr + (part * rows + row)[:, None] * D + d[None, :], filled, 0.0)
    length = 1 if WHOLE else tl.load(length_ptr)
    out = _divided(tl.sum(out * weight[:, None], 0), tl.sum(norm * weight, 0), length, NANS)
    tl.store(out_ptr + row * D + d, out)
