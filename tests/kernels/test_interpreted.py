"""The kernels give what the ops they stand for give, under Triton's interpreter where there is no GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxpass.kernels.select import register

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAN = float("nan")


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    register()


def rand(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype).to(DEVICE)


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    """Within a few roundings of ``dtype``, relative to the largest number."""
    assert torch.isfinite(found).all()
    error = (found.double() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30)
    assert error < {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]


PRODUCTS = [
    (1, [40], 96, torch.float32, True, 1),
    (1, [20, 7, 5], 300, torch.bfloat16, False, 3),
    (1, [9, 4], 64, torch.float16, True, 2),
    (2, [33], 17, torch.float32, False, 1),
    (7, [40, 20, 6], 96, torch.float32, True, 3),
    (8, [130], 700, torch.float32, False, 4),
    (16, [70], 600, torch.float16, False, 2),
    (3, [16], 520, torch.float32, False, 2),
    (5, [16, 1], 48, torch.float16, True, 1),
]


@pytest.mark.parametrize("rows, outputs, k, dtype, bias, parts", PRODUCTS)
def test_few_rows(rows: int, outputs: list[int], k: int, dtype: torch.dtype, bias: bool, parts: int) -> None:
    x, weights = rand(1, rows, k, dtype=dtype), [rand(n, k, dtype=dtype) for n in outputs]
    biases = [rand(n, dtype=dtype) for n in outputs] if bias else []
    found = torch.ops.kvfix.linears_few_rows(x, weights, biases, parts, True)
    again = torch.ops.kvfix.linears_few_rows(x, weights, biases, parts, True)
    single = torch.ops.kvfix.linear_few_rows(x, weights[0], biases[0] if bias else None, parts, False)
    assert all(torch.equal(f, a) for f, a in zip(found, again, strict=True))
    for i, (f, w) in enumerate(zip((*found, single), (*weights, weights[0]), strict=True)):
        b = biases[i % len(biases)].double() if bias else None
        assert f.dtype is (dtype if parts == 1 else torch.float32) and f.shape[0] == parts and f.is_contiguous()
        close(f.double().sum(0), torch.nn.functional.linear(x.double(), w.double(), b), dtype)


@pytest.mark.parametrize("rows, n, k, dtype, bias, count", [
    (1, 21, 300, torch.bfloat16, False, 2), (2, 33, 520, torch.float32, True, 2), (7, 130, 96, torch.float16, True, 1),
    (8, 1000, 70, torch.float32, False, 2), (16, 40, 700, torch.float32, True, 1), (5, 18, 300, torch.float16, True, 2),
])  # fmt: skip
def test_functions_of_layers(rows: int, n: int, k: int, dtype: torch.dtype, bias: bool, count: int) -> None:
    """Of one, and of the two halves of one."""
    x, weight, vector = rand(1, rows, k, dtype=dtype), rand(count * n, k, dtype=dtype), rand(count * n, dtype=dtype)
    text = "t0 = a / (1 + exp(-a)); t1 = t0 * b; return t1" if count == 2 else "return -a"
    biases = vector.split(n) if bias else []
    found = torch.ops.kvfix.gated_few_rows(x, weight.split(n), biases, text, True)
    whole = torch.nn.functional.linear(x.double(), weight.double(), vector.double() if bias else None)
    wanted = torch.nn.functional.silu(whole[..., :n]) * whole[..., n:] if count == 2 else -whole
    assert found.dtype is dtype and found.is_contiguous()
    close(found, wanted, dtype)


def test_rows_that_are_not_contiguous() -> None:
    x, weight = rand(3, 2, 64)[:, 0], rand(8, 64)
    close(torch.ops.kvfix.linear_few_rows(x, weight, None, 1, True)[0], x.double() @ weight.double().T, torch.float32)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, length: int, mask: Any, causal: bool) -> torch.Tensor:
    """In float64, of the first ``length`` keys; zeros where nothing is seen."""
    queries, groups = q.shape[2], q.shape[1] // k.shape[1]
    k, v = (t[:, :, :length].double().repeat_interleave(groups, 1) for t in (k, v))
    scores = q.double() @ k.mT * 0.2
    if mask is not None:
        mask = mask.expand(*q.shape[:3], k.shape[2] if mask.shape[-1] == 1 else mask.shape[-1])[..., :length]
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype is torch.bool else scores + mask.double()
    if causal:
        seen = torch.ones(queries, length, dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1).nan_to_num(0) @ v


def bools(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, device=DEVICE) > 0.4


def one_row_sees_nothing(*shape: int) -> torch.Tensor:
    seen = bools(*shape)
    seen[..., 0, :] = False
    return seen


ATTENTION = [  # batch, heads, key heads, queries, size, length, mask, causal, dtype
    (2, 4, 2, 1, 50, 33, None, False, torch.float32),
    (1, 2, 2, 1, 20, 20, None, True, torch.float32),
    (1, 4, 1, 3, 40, 29, lambda: bools(1, 1, 3, 40), False, torch.float32),
    (2, 2, 1, 4, 300, 260, lambda: rand(2, 1, 4, 300), False, torch.float32),
    (1, 2, 2, 5, 300, 300, None, True, torch.float32),
    (1, 8, 2, 3, 600, 70, lambda: one_row_sees_nothing(1, 1, 3, 600), False, torch.float32),
    (1, 2, 1, 40, 64, 50, lambda: bools(40, 1), False, torch.float32),
    (1, 2, 1, 2, 300, 0, None, False, torch.float32),
    (1, 3, 3, 1, 300, 300, lambda: bools(1, 1, 1, 300), False, torch.float32),
    (2, 4, 2, 2, 280, 270, None, False, torch.float16),
    (1, 2, 2, 1, 64, 10, lambda: rand(1, 2, 1, 64, dtype=torch.float16), False, torch.float16),
]


@pytest.mark.parametrize("batch, heads, key_heads, queries, size, length, mask, causal, dtype", ATTENTION)
@pytest.mark.parametrize("transposed", [False, True])
def test_attention(
    batch: int, heads: int, key_heads: int, queries: int, size: int, length: int, mask: Any, causal: bool,
    dtype: torch.dtype, transposed: bool,
) -> None:  # fmt: skip
    """What is not valid is not read: it is NaN."""
    given = None if mask is None else mask()
    q = rand(batch, heads, queries, 32, dtype=dtype)
    k, v = (rand(batch, key_heads, size, 32, dtype=dtype) for _ in range(2))
    if transposed:
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    k[:, :, length:], v[:, :, length:] = NAN, NAN
    valid = None if length == size else torch.tensor(length, device=DEVICE)
    found = torch.ops.kvfix.decode_attention(q, k, v, valid, given, causal, 0.2)
    if length == 0:
        assert torch.equal(found, torch.zeros_like(q))
        return
    close(found, attention(q, k, v, length, given, causal), dtype)


@pytest.mark.parametrize("size", [8, 600])
def test_a_query_that_sees_nothing(size: int) -> None:
    """Zeros from ``scaled_dot_product_attention``, NaN from a softmax that is written out; zeros where there are no keys."""
    q, k = rand(1, 1, 2, 16), rand(1, 1, size, 16)
    mask = torch.tensor([[True], [False]], device=DEVICE)
    for nans, length in ((False, 3), (True, 3), (True, 0)):
        length = torch.tensor(length, device=DEVICE)
        seeing, blind = torch.ops.kvfix.decode_attention(q, k, k, length, mask, False, 1.0, nans)[0, 0]
        assert torch.isfinite(seeing).all()
        assert blind.isnan().all() if nans and length else torch.equal(blind, torch.zeros_like(blind))


@pytest.mark.parametrize("dim", range(3))
@pytest.mark.parametrize("slot", [-1, 4, 2**40])
def test_a_slot_outside_of_the_buffer_writes_nothing(dim: int, slot: int) -> None:
    around = rand(6, 6, 6)
    buffer, before = around[1:5, 1:5, 1:5], around.clone()
    source = rand(*(2 if d == dim else 4 for d in range(3)))
    torch.ops.kvfix.write_rows(buffer, dim, torch.tensor([slot, 2], device=DEVICE), source)
    before[1:5, 1:5, 1:5].select(dim, 2).copy_(source.select(dim, 1))
    assert torch.equal(around, before)
