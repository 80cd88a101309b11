"""The last rows of caches whose sizes are symbols, taken from a fixed capacity: ``k[:, :, 32 - n:]``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

CAPACITY = 32
Step = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def rolled(k: Tensor, v: Tensor, x: Tensor, p: int) -> Tensor:
    """Eviction by `roll`: the newest row lies last."""
    for cache in (k, v):
        cache.copy_(cache.roll(-1, 2))
        cache[:, :, -1:] = x
    n = min(p + 1, CAPACITY)
    return sdpa(x, k[:, :, CAPACITY - n :], v[:, :, CAPACITY - n :])


def attended(k: Tensor, v: Tensor, x: Tensor, p: int) -> Tensor:
    return sdpa(x, k[:, :, CAPACITY - p :], v[:, :, CAPACITY - p :])


def by_hand(k: Tensor, v: Tensor, x: Tensor, p: int) -> Tensor:
    return (x @ k[:, :, CAPACITY - p :].mT).softmax(-1) @ v[:, :, CAPACITY - p :]


def multiplied(k: Tensor, v: Tensor, x: Tensor, p: int) -> Tensor:
    return (k[:, :, CAPACITY - p :] * v[:, :, CAPACITY - p :]).sum(2)


def chosen(k: Tensor, v: Tensor, x: Tensor, p: int) -> Tensor:
    k, v = k[:, :, CAPACITY - p :], v[:, :, CAPACITY - p :]
    return torch.where(k > 0, k, v).amax(2)


@torch.no_grad()
@pytest.mark.parametrize("step", [rolled, attended, by_hand, multiplied, chosen], ids=lambda f: f.__name__)
def test_keys_and_values_have_one_length(step: Step) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    mine, eager = torch.randn(2, 1, 2, CAPACITY, 8).repeat(2, 1, 1, 1, 1, 1)
    for p in range(3, 8):
        x = torch.randn(1, 2, 1, 8)
        torch.testing.assert_close(compiled(*mine, x, p), step(*eager, x, p))
        assert torch.equal(mine, eager)
    report = fxpass.reports()[-1]
    assert report.rewritten == 2 and not report.refused and len(fxpass.reports()) == 2


@torch.no_grad()
def test_caches_of_other_sizes() -> None:
    compiled = torch.compile(attended, backend="kvfix", options={"compiler": "eager"})
    for more in (0, 0, 0, 4, 1, 9):
        k, v = torch.randn(2, 1, 2, CAPACITY + more, 8)
        x, p = torch.randn(1, 2, 1, 8), 3 + more
        torch.testing.assert_close(compiled(k, v, x, p), attended(k, v, x, p))
