"""Caches of other capacities: a core is compiled for the first, and once more for all others; capacities are no variants that
could be too many."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compilations import parts_compiled
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import fxpass

CAPACITIES = [12, 17, 9, 40, 8, 64, 33, 21, 13, 14, 15]
"""More than Dynamo would compile for."""
STEPS = 5


def attended(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    end = start + q.shape[1]
    k[:, start:end], v[:, start:end] = q, q * 2
    return scaled_dot_product_attention(q, k[:, :end], v[:, :end])


def written_out(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    """With a mask and a bias of the cache's size."""
    end = start + q.shape[1]
    k[:, start:end], v[:, start:end] = q, q * 2
    causal = torch.ones(k.shape[1], k.shape[1], dtype=torch.bool).tril()[start:end, :end]
    bias = (torch.arange(k.shape[1]) % 3 * 0.5)[:end]
    return (q @ k[:, :end].mT + bias).masked_fill(~causal, -torch.inf).softmax(-1) @ v[:, :end]


def by_layer(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    """[layers, rows, heads]: layers of one tensor, of which the rows lie behind the heads."""
    for layer in range(k.shape[2] // 4):
        end = start + q.shape[1]
        rows = slice(4 * layer, 4 * layer + 4)
        k[:, start:end, rows], v[:, start:end, rows] = q[..., rows], q[..., rows] * 2
        q = q + scaled_dot_product_attention(q[..., rows], k[:, :end, rows], v[:, :end, rows]).repeat(1, 1, 2)
    return q


def read_whole(q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
    """All of it, too: what is not written is zeros."""
    return attended(q, k, v, start) + k.mean(1, keepdim=True) + v.shape[1]


Cache = Callable[[int], tuple[Tensor, Tensor]]
CACHES: dict[str, Cache] = {
    "alike": lambda n: (torch.zeros(2, n, 8), torch.zeros(2, n, 8)),
    "of two capacities": lambda n: (torch.zeros(2, n, 8), torch.zeros(2, n + 5, 8)),
    "of one tensor": lambda n: torch.zeros(2, 2, n, 8).unbind(),  # type: ignore[dict-item]
    "turned": lambda n: (torch.zeros(n, 2, 8).transpose(0, 1), torch.zeros(n, 2, 8).transpose(0, 1)),
    "float64": lambda n: (torch.zeros(2, n, 8).double(), torch.zeros(2, n, 8).double()),
}


@torch.no_grad()
def decode(step: Callable[..., Tensor], fn: Callable[..., Tensor], make: Cache, capacity: int) -> None:
    ours, theirs = make(capacity), make(capacity)
    for start in range(min(STEPS, capacity)):
        q = torch.rand(2, 1, 8, dtype=ours[0].dtype)
        torch.testing.assert_close(fn(q, *ours, start), step(q, *theirs, start))
        torch.testing.assert_close(ours, theirs)


def is_one_core() -> bool:
    report = fxpass.reports()[-1]
    cores = [name for name, _, _ in report.parts if name != "prologue"]
    return cores == ["core"] and not (report.outside or report.corrected or report.refused)


@pytest.mark.parametrize(
    "step, cache, compiler",
    [(attended, "of two capacities", "aot_eager"), (attended, "of one tensor", "eager"), (attended, "turned", "eager"),
     (written_out, "alike", "aot_eager"), (by_layer, "float64", "eager"), (read_whole, "alike", "eager")],
)  # fmt: skip
def test_a_core_is_compiled_twice_for_all_capacities(step: Callable[..., Tensor], cache: str, compiler: str) -> None:
    fn = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    with parts_compiled(least=64) as made:
        for capacity in CAPACITIES:
            decode(step, fn, CACHES[cache], capacity)
    assert made.count("core") == 4, made  # of the first step, and of all others
    assert is_one_core()


@pytest.mark.inductor
def test_with_inductor() -> None:
    fn = torch.compile(attended, backend="kvfix")
    with parts_compiled(least=64) as made:
        for capacity in CAPACITIES[:5]:
            decode(attended, fn, CACHES["alike"], capacity)
    assert made.count("core") <= 4 and is_one_core(), made


def test_a_capacity_of_one_is_not_taken_for_all() -> None:
    fn = torch.compile(attended, backend="kvfix", options={"compiler": "aot_eager"})
    for capacity in (8, 1, 6, 1, 9):
        decode(attended, fn, CACHES["alike"], capacity)
