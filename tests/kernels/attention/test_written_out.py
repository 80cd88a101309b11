"""Attention that a model writes out goes to the kernel, where it is what the kernel computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fxpass.kernels.launches import limits

HEADS, KEY_HEADS, DIM, SIZE = 4, 2, 16, 12
Attend = Callable[..., torch.Tensor]


def weighted(scores: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(scores.float(), -1).type_as(v) @ v


def divided(q, k, v, mask):
    return weighted(q @ k.transpose(2, 3) / math.sqrt(DIM), v)


def multiplied_with_a_mask(q, k, v, mask):
    return weighted(q @ k.transpose(-1, -2) * 0.3 + mask, v)


def that_sees_nothing(q, k, v, mask):
    return weighted(q @ k.transpose(2, 3) + torch.full_like(mask, -torch.inf), v)


def unscaled(q, k, v, mask):
    return torch.matmul(torch.nn.functional.softmax(torch.matmul(q * 0.5, k.transpose(2, 3)), dim=-1), v)


def capped(q, k, v, mask):
    return weighted(torch.tanh(q @ k.transpose(2, 3)), v)


def scaled_with_the_mask(q, k, v, mask):
    return weighted((q @ k.transpose(2, 3) + mask) * 0.3, v)


def of_weights_that_are_scaled(q, k, v, mask):
    return (torch.softmax(q @ k.transpose(2, 3), -1) * 2) @ v


def over_the_queries(q, k, v, mask):
    return torch.softmax(q @ k.transpose(2, 3), 2) @ v


def expanded(x: torch.Tensor) -> torch.Tensor:
    """(batch, size, heads, dim), each head twice."""
    b, s, h, d = x.shape
    return x[:, :, :, None, :].expand(b, s, h, 2, d).reshape(b, s, 2 * h, d).transpose(1, 2)


def interleaved(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).repeat_interleave(2, dim=1)


def repeated_as_a_whole(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).repeat(1, 2, 1, 1)


def kernels_of(
    used: set[Any],
    monkeypatch: pytest.MonkeyPatch,
    attend: Attend,
    repeat: Callable[..., Any],
    queries: int,
    dtype: torch.dtype,
) -> set[str]:
    """The kernels in the core of a step, whose results are checked against eager's."""
    monkeypatch.setattr(limits, "DEVICES", {"cpu"})

    def step(q, keys, values, k, v, mask, pos):
        end = pos + queries
        keys[:, pos:end], values[:, pos:end] = k, v
        return attend(q, repeat(keys[:, :end]), repeat(values[:, :end]), mask[..., :end])

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    own = [torch.full((1, SIZE, KEY_HEADS, DIM), torch.nan, dtype=dtype) for _ in range(2)]
    other = [t.clone() for t in own]
    for pos in (0, queries, 2 * queries):
        q, k, v = (torch.randn(1, queries, h, DIM).to(dtype) for h in (HEADS, KEY_HEADS, KEY_HEADS))
        mask = torch.randn(queries, SIZE).to(dtype)
        wanted = step(q.transpose(1, 2), *other, k, v, mask, pos)
        close = {"rtol": 2e-3, "atol": 2e-3} if dtype is torch.float16 else {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(compiled(q.transpose(1, 2), *own, k, v, mask, pos), wanted, equal_nan=True, **close)
        torch.testing.assert_close(own, other, equal_nan=True)
    return {op._opname for op in used}


@torch.no_grad()
@pytest.mark.parametrize(
    "attend, queries, dtype",
    [
        (divided, 2, torch.float16),
        (divided, 1, torch.float32),
        (multiplied_with_a_mask, 1, torch.float32),
        (multiplied_with_a_mask, 3, torch.float32),
        (unscaled, 2, torch.float32),
        (that_sees_nothing, 1, torch.float32),
    ],
)
def test_attention_for_the_kernel(used, monkeypatch, attend: Attend, queries: int, dtype: torch.dtype) -> None:
    op = "write_and_attend" if queries == 1 else "decode_attention"
    assert op in kernels_of(used, monkeypatch, attend, expanded, queries, dtype)


@torch.no_grad()
@pytest.mark.parametrize("repeat, op", [(interleaved, "write_and_attend"), (repeated_as_a_whole, "decode_attention")])
def test_heads_that_are_repeated(used, monkeypatch, repeat: Callable[..., Any], op: str) -> None:
    """The kernel reads the cache where one key serves heads that are side by side, and a copy of it otherwise."""
    assert op in kernels_of(used, monkeypatch, divided, repeat, 1, torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("attend", [capped, scaled_with_the_mask, of_weights_that_are_scaled, over_the_queries])
def test_what_is_no_plain_attention(used, monkeypatch, attend: Attend) -> None:
    assert "decode_attention" not in kernels_of(used, monkeypatch, attend, expanded, 2, torch.float32)
