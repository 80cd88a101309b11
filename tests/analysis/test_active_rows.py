"""Attention over the rows of a batch that a small mask takes out: as many as are active, in one static step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

ROWS, HEADS, CAPACITY, DIM = 4, 2, 12, 4
ON = ((0, 1, 2, 3), (0, 1, 3), (1, 3), (0, 2), (1, 2, 3), (0, 3))
"""The rows that are active in each call."""
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def masked(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    return sdpa(q, k, v, attn_mask=(torch.arange(k.shape[2]) < lens[:, None])[:, None, None])


def biased(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    far = lens[:, None] - torch.arange(k.shape[2])
    bias = (far * 0.1).masked_fill(far <= 0, float("-inf"))[:, None, None]
    return sdpa(q, k, v, attn_mask=bias.expand(-1, HEADS, 1, -1))


def unmasked(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    return sdpa(q, k, v)


def shared_mask(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    return sdpa(q, k, v, attn_mask=(torch.arange(k.shape[2]) < 2)[None])


def grouped(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    return sdpa(q, k[:, :1], v[:, :1], enable_gqa=True)


def of_three_dims(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    return sdpa(q[:, 0], k[:, 0], v[:, 0], attn_mask=(torch.arange(k.shape[2]) < lens[:, None])[:, None])[:, None]


def one_query(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    """The same query for all."""
    return sdpa(k.new_ones(k.shape[0], HEADS, 1, DIM), k, v)


def by_hand(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    seen = (torch.arange(k.shape[2]) < lens[:, None])[:, None, None]
    return (q @ k.mT).masked_fill(~seen, float("-inf")).softmax(-1) @ v


def rows_as_heads(q: Tensor, k: Tensor, v: Tensor, lens: Tensor) -> Tensor:
    """The batch stands where heads do, and heads are in groups."""
    return sdpa(*(t.transpose(0, 1) for t in (q, k, v)), enable_gqa=True).transpose(0, 1)


STATIC: list[Attend] = [masked, biased, unmasked, shared_mask, grouped, of_three_dims, one_query, by_hand]


def run(attend: Attend) -> fxpass.Report:
    def step(cache: Tensor, lens: Tensor, x: Tensor, on: Tensor) -> Tensor:
        keys, values = cache
        keys[on, :, lens[on]] = x[on, :, 0]
        values[on, :, lens[on]] = x[on, :, 0] * 2
        lens[on] += 1
        end = int(lens.max())
        out = torch.zeros_like(x)
        out[on] = attend(x[on], keys[:, :, :end][on], values[:, :, :end][on], lens[on])
        return out

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    first = torch.full((2, ROWS, HEADS, CAPACITY, DIM), float("nan"))
    first[:, :, :, :5] = torch.rand(2, ROWS, HEADS, 5, DIM)
    mine, theirs = ((first.clone(), torch.tensor([3, 4, 2, 3])) for _ in range(2))
    for rows in ON:
        on = torch.zeros(ROWS, dtype=torch.bool)
        on[list(rows)] = True
        x = torch.randn(ROWS, HEADS, 1, DIM)
        torch.testing.assert_close(compiled(*mine, x, on), step(*theirs, x, on), equal_nan=True)
        torch.testing.assert_close(mine, theirs, equal_nan=True)
    return fxpass.reports()[-1]


@torch.no_grad()
@pytest.mark.parametrize("attend", STATIC, ids=lambda f: f.__name__)
def test_one_static_core(attend: Attend) -> None:
    report = run(attend)
    assert not report.refused and not report.outside and report.rewritten
    assert [static for name, static, _ in report.parts if name != "prologue"] == [True]
    assert len(fxpass.reports()) <= 3


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_rows_in_groups_are_refused() -> None:
    assert any(site.id == "KV122" for site in run(rows_as_heads).sites)


def softmaxed(q: Tensor, kv: Tensor) -> Tensor:
    return (q @ kv.mT).softmax(-1) @ kv


def rows_then_slice(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    return softmaxed(x[on], keys[on][:, :, :n])


def places_then_slice(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    at = on.nonzero()[:, 0]
    return softmaxed(x[at], keys.index_select(0, at)[:, :, :n])


def heads_then_slice(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    return softmaxed(x.transpose(0, 1)[:, on], keys.transpose(0, 1)[:, on][:, :, :n])


def rows_then_last_rows(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    return softmaxed(x[on], keys[on][:, :, n - 3 : n])


def rows_then_window(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    return softmaxed(x[on], keys[on][:, :, p - 2 : n])


def rows_then_causal(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    """The mask is made before the slice that it is as long as."""
    mask = torch.arange(n) <= torch.arange(p, n)[:, None]
    kv = keys[on][:, :, :n]
    return sdpa(x[on], kv, kv, attn_mask=mask)


def rows_written_and_put_back(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    rows = keys[on]
    rows[:, :, p:n] = x[on] + 1
    keys[on] = rows
    return softmaxed(x[on], rows[:, :, :n])


def put_among_all(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    out = torch.zeros_like(x)
    out[on] = softmaxed(x[on], keys[on][:, :, :n])
    return out


def result_rows(keys: Tensor, x: Tensor, on: Tensor, p: int, n: int) -> Tensor:
    return softmaxed(x, keys[:, :, :n])[on]


SLICED = [rows_then_slice, places_then_slice, heads_then_slice, rows_then_last_rows, rows_then_window, rows_then_causal]
PUT = [rows_written_and_put_back, put_among_all, result_rows]


@torch.no_grad()
@pytest.mark.parametrize("attend", SLICED + PUT, ids=lambda f: f.__name__)
def test_a_slice_of_the_rows_that_are_active(attend: Callable[..., Tensor]) -> None:
    """Rows are taken out of the whole cache, and then sliced: the other order is `run`. What is returned has their number."""

    def step(keys: Tensor, x: Tensor, on: Tensor, p: int) -> Tensor:
        n = p + x.shape[2]
        keys[:, :, p:n] = x
        return attend(keys, x, on, p, n)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    first = torch.full((ROWS, ROWS, CAPACITY, DIM), float("nan"))
    first[:, :, :4] = torch.rand(ROWS, ROWS, 4, DIM)
    mine, theirs = first.clone(), first.clone()
    for p, rows in enumerate(ON, 4):
        on, x = torch.zeros(ROWS, dtype=torch.bool), torch.randn(ROWS, ROWS, 1, DIM)
        on[list(rows)] = True
        given, wanted = compiled(mine, x, on, p), step(theirs, x, on, p)
        torch.testing.assert_close(given, wanted)
        assert given.stride() == wanted.stride()
        torch.testing.assert_close(mine, theirs, equal_nan=True)
    report = fxpass.reports()[-1]
    assert not report.refused and not report.outside and len(fxpass.reports()) <= 3
    assert [static for name, static, _ in report.parts if name != "prologue"] == [True]
