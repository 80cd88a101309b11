"""Complex caches, and caches that hold complex numbers as pairs: the views between the two keep the axes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_models import kvfix
from torch import Tensor

import fxpass

CAPACITY = 8
NAN = float("nan")


def parts(k: Tensor) -> Tensor:
    return torch.view_as_real(k).sum((1, 3))


def real(k: Tensor) -> Tensor:
    return k.real.softmax(1).amax(1)


def imaginary(k: Tensor) -> Tensor:
    return (k.imag.mT @ k.imag).sum(1)


def attended(k: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(torch.ones(2, 1, 4), k.real, k.imag)


def transposed(k: Tensor) -> Tensor:
    return torch.view_as_real(k.transpose(0, 1)).sum(0).amax(-1)


def magnitude(k: Tensor) -> Tensor:
    return k.abs().sum(1)


def there_and_back(k: Tensor) -> Tensor:
    return torch.view_as_complex(torch.view_as_real(k) * 2).sum(1)


def turned(k: Tensor) -> Tensor:
    return torch.view_as_real(k * torch.polar(torch.ones(4), torch.arange(4.0))).flatten(2).mean(1)


def grown(k: Tensor) -> Tensor:
    return torch.view_as_real(k)[..., 0].cumsum(1).sum(1)


def conjugated(k: Tensor) -> Tensor:
    return (k @ k.conj().transpose(1, 2).resolve_conj()).real.softmax(-1).amax((1, 2))


def negated(k: Tensor) -> Tensor:
    return k.conj().imag.resolve_neg().sum(1)


COMPLEX = [parts, real, imaginary, attended, transposed, magnitude, there_and_back, turned, grown, conjugated, negated]


def same(step: Callable[..., Tensor], buffer: Tensor, compiler: str) -> None:
    mine, eager, compiled = buffer.clone(), buffer.clone(), kvfix(step, compiler=compiler)
    for position in range(CAPACITY - 1):
        x = torch.rand(2, 1, 4, dtype=torch.complex64)
        torch.testing.assert_close(compiled(mine, x, position), step(eager, x, position))
        torch.testing.assert_close(mine, eager, equal_nan=True, rtol=0, atol=0)


def all_rewritten() -> bool:
    return fxpass.reports()[-1].rewritten > 0 and not any(r.unfit or r.refused for r in fxpass.reports())


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("finish", COMPLEX, ids=lambda f: f.__name__)
@torch.no_grad()
def test_a_complex_cache(finish: Callable[[Tensor], Tensor], compiler: str) -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = x
        return finish(k[:, : p + 1])

    same(step, torch.full((2, CAPACITY, 4), complex(NAN, NAN)), compiler)
    assert all_rewritten()


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("finish", COMPLEX, ids=lambda f: f.__name__)
@torch.no_grad()
def test_a_cache_of_pairs(finish: Callable[[Tensor], Tensor], compiler: str) -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        k[:, p : p + 1] = torch.view_as_real(x)
        return finish(torch.view_as_complex(k[:, : p + 1]))

    same(step, torch.full((2, CAPACITY, 4, 2), NAN), compiler)
    assert all_rewritten()


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@torch.no_grad()
def test_rows_written_by_their_parts(compiler: str) -> None:
    def step(k: Tensor, x: Tensor, p: int) -> Tensor:
        rows = k[:, p : p + 1]
        rows.real.copy_(x.imag)
        rows.imag.copy_(x.real * 2)
        return torch.view_as_real(k[:, : p + 1]).sum(1)

    same(step, torch.full((2, CAPACITY, 4), complex(NAN, NAN)), compiler)
    assert all_rewritten()
