"""A use that refuses rows does not cost their other uses: attention stays in the static core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import fxpass

HEADS, CAPACITY, DIM = 2, 24, 4
WEIGHT = torch.linspace(-1, 1, DIM * DIM).view(DIM, DIM)
Finish = Callable[[Tensor, Tensor, Tensor, int, int], Any]

pytestmark = pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")


def attend(x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return sdpa(x, k, v, attn_mask=mask) @ WEIGHT


def two_layers(x: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return attend(attend(x, k, v, mask), k, v, mask)


def causal(at: Tensor, p: int, n: int) -> Tensor:
    return at[None] <= torch.arange(p, n)[:, None]


def modes(at: Tensor) -> Tensor:
    """A reduction that has no rule."""
    return at.mode(-1).values


def a_range(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    at = torch.arange(n)
    return attend(x, k, v, causal(at, p, n)), at


def a_range_twice(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    at = torch.arange(n)
    return attend(x, k, v, causal(at, p, n)), at, at, at[1:]


def parts_of_a_range(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    at = torch.arange(n)
    return attend(x, k, v, causal(at, p, n)), at, at[:2], at[None, 1:]


def a_range_that_is_reduced(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    at = torch.arange(n)
    return attend(x, k, v, causal(at, p, n)), modes(at)


def a_range_that_is_a_size(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    at = torch.arange(n)
    return attend(x, k[:, : at.numel()], v, causal(at, p, at.shape[0])), at * 2, at.shape[0]


def a_full_tensor(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    mask = torch.full((n, n), float("-inf")).triu(1)[p:n]
    return two_layers(x, k, v, mask), mask


def a_triangle(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    triangle = torch.tril(torch.ones(n, n, dtype=torch.bool))
    return two_layers(x, k, v, triangle[p:n]), triangle.sum(0)


def a_comparison(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    mask = causal(torch.arange(n), p, n)
    return two_layers(x, k, v, mask), mask


def a_comparison_that_is_reduced(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    mask = causal(torch.arange(n), p, n)
    return two_layers(x, k, v, mask), modes(mask.int())


def two_results(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    at, ones = torch.arange(n), torch.ones(n)
    return attend(x, k, v, causal(at, p, n) & (ones > 0)), at + 1, ones, modes(at)


def keys(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    return attend(x, k, v), k


def keys_that_are_computed(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    k = k.double().float()
    return attend(x, k, v), k * 2


def keys_that_are_reduced(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    return attend(x, k, v), modes(k.mT)


def keys_in_parts(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    return attend(x, k, v), k.unbind(0)[1]


def one_layer_of_two(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    """One layer reads weights and an operator without a rule under the mask that the other layer has."""
    mask = causal(torch.arange(n), p, n)
    y = attend(x, k, v, mask)
    return y, modes((y @ k.mT).masked_fill(~mask, -1e9))


STATIC: list[Finish] = [
    a_range,
    a_range_twice,
    parts_of_a_range,
    a_range_that_is_reduced,
    a_range_that_is_a_size,
    a_full_tensor,
    a_triangle,
    a_comparison,
    a_comparison_that_is_reduced,
    two_results,
    keys,
    keys_that_are_computed,
    keys_that_are_reduced,
    keys_in_parts,
]


def written_in_place(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    at = torch.arange(n)
    y = attend(x, k, v, causal(at, p, n))
    return y, at.add_(1)


def rows_written_meanwhile(x: Tensor, k: Tensor, v: Tensor, p: int, n: int) -> Any:
    before = k * 2
    k[:, 0] = 7.0
    return attend(x, k, v), before, k



RIGHT: list[Finish] = [written_in_place, rows_written_meanwhile, one_layer_of_two]


def run(finish: Finish, options: dict[str, Any]) -> fxpass.Report:
    """Run six steps beside eager: results, which of them share memory, and caches are equal. Gives the last report."""

    def step(keys: Tensor, values: Tensor, x: Tensor, p: int) -> Any:
        n = p + x.shape[1]
        keys[:, p:n], values[:, p:n] = x @ WEIGHT, x + 1
        return finish(x, keys[:, :n], values[:, :n], p, n)

    compiled = torch.compile(step, backend="kvfix", options=options)
    mine, eager = (torch.zeros(2, HEADS, CAPACITY, DIM) for _ in range(2))
    for p in (0, *range(3, 8)):
        x = torch.randn(HEADS, 1 if p else 3, DIM)
        given, wanted = compiled(*mine, x, p), step(*eager, x, p)
        torch.testing.assert_close(given, wanted)
        torch.testing.assert_close(mine, eager)
        assert shared(given, mine) == shared(wanted, eager)
    assert len(fxpass.reports()) == 2
    return fxpass.reports()[-1]


def shared(results: Any, cache: Tensor) -> list[list[bool]]:
    """Which of the results, and the cache, lie in one memory, and which are one tensor."""
    tensors = [cache, *(r for r in results if isinstance(r, Tensor))]
    memories = [t.untyped_storage().data_ptr() for t in tensors]
    return [[a == b for b in memories] for a in memories] + [[a is b for b in tensors] for a in tensors]


@torch.no_grad()
@pytest.mark.parametrize("finish", STATIC, ids=lambda f: f.__name__)
def test_attention_stays_in_the_core(finish: Finish) -> None:
    report = run(finish, {"compiler": "eager"})
    assert report.outside == [] and [static for _, static, _ in report.parts].count(True) == 1
    assert report.refused > 0


@torch.no_grad()
@pytest.mark.parametrize("finish", RIGHT, ids=lambda f: f.__name__)
def test_what_cannot_be_copied_is_refused_for_all(finish: Finish) -> None:
    assert run(finish, {"compiler": "eager"}).refused > 0
