"""Products of complex numbers that are made of pairs and seen as pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graphs import traced

from fxpass.kernels.for_inductor.pairs import use_pairs
from fxpass.kernels.launches.memory_writes import MemoryWrites


def complex_of(x: torch.Tensor) -> torch.Tensor:
    return torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))


def rotated(x, f):
    return torch.view_as_real(complex_of(x) * f.view(1, 3, 1, 4)).flatten(3).type_as(x)


def two_of_one_table(x, f):
    f = f.unsqueeze(0).unsqueeze(2)
    return rotated(x, f), torch.view_as_real(f * complex_of(x * 2))


def transposed_products(x, f):
    product = (complex_of(x).transpose(1, 2) * f).transpose(1, 2) * f.view(1, 3, 1, 4)
    return torch.view_as_real(product[:, 1:])


def squares(x, f):
    c = complex_of(x)
    return torch.view_as_real(c * c)


def of_a_table_in_halves(x, f):
    return torch.view_as_real(complex_of(x.bfloat16()) * f.view(1, 3, 1, 4)).flatten(3).bfloat16()


def seen_as_numbers_too(x, f):
    c = complex_of(x) * f.view(1, 3, 1, 4)
    return torch.view_as_real(c), c.abs()


def of_a_conjugate(x, f):
    return torch.view_as_real(complex_of(x) * f.conj().view(1, 3, 1, 4))


def of_a_table_that_is_written(x, f):
    c = complex_of(x)
    y = c * f.view(1, 3, 1, 4)
    f.mul_(2)
    return torch.view_as_real(y)


def written_to(x, f):
    y = torch.view_as_real(complex_of(x) * f.view(1, 3, 1, 4))
    y.add_(1)
    return y


def a_sum(x, f):
    return torch.view_as_real(complex_of(x) + f.view(1, 3, 1, 4))


def by_numbers(x, f):
    return torch.view_as_real(complex_of(x) * 2)


@pytest.mark.parametrize(
    "fn, left",
    [
        (rotated, 0), (two_of_one_table, 0), (transposed_products, 0), (squares, 0), (of_a_table_in_halves, 0),
        (seen_as_numbers_too, 1), (of_a_conjugate, 1), (of_a_table_that_is_written, 1), (written_to, 1), (a_sum, 0),
        (by_numbers, 1),
    ],
)  # fmt: skip
def test_pairs(fn: Callable[..., object], left: int) -> None:
    """The same numbers, with so many products of complex numbers left."""
    torch.manual_seed(0)
    given = [torch.randn(2, 3, 2, 8), torch.polar(torch.ones(3, 4), torch.randn(3, 4))]
    gm = traced(fn, given)
    expected, copies = fn(*(g.clone() for g in given)), [g.clone() for g in given]
    use_pairs(gm.graph, MemoryWrites(gm.graph))
    gm.graph.lint()
    gm.recompile()
    torch.testing.assert_close(gm(*copies), expected)
    products = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.mul.Tensor)
    assert sum(n.meta["val"].is_complex() for n in products) == left
