"""With opt_einsum installed, the order of an einsum's contractions depends on sizes, and yet no size has a graph of its own."""

from __future__ import annotations

from collections.abc import Callable

import opt_einsum
import pytest
import torch
from torch import Tensor

import fxpass


def kept(x: Tensor, cache: Tensor, p: int) -> Tensor:
    return torch.einsum("qc,kc,cd->qkd", x, cache[:p], cache[:8]).sum(1)


def contracted(x: Tensor, cache: Tensor, p: int) -> Tensor:
    return torch.einsum("qc,kc,kd->qd", x, cache[:p], cache[:p])


def unnamed(x: Tensor, cache: Tensor, p: int) -> Tensor:
    return torch.einsum("...c,kc,kd,de", x, cache[:p], cache[:p], cache[:8])


def as_lists(x: Tensor, cache: Tensor, p: int) -> Tensor:
    return torch.einsum(x, [0, 1], cache[:p], [2, 1], cache[:p], [2, 3], [0, 3])


def grown(x: Tensor, cache: Tensor, p: int) -> Tensor:
    return torch.einsum("qc,kc,kd->qd", x, torch.cat([cache[:p], x]), torch.cat([cache[:p], x]))


@pytest.mark.parametrize("program", [kept, contracted, unnamed, as_lists, grown])
@torch.no_grad()
def test_one_graph_serves_all_sizes(program: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    assert torch.backends.opt_einsum.is_available()
    x, cache = torch.randn(2, 8, dtype=torch.float64), torch.randn(64, 8, dtype=torch.float64)
    cache[40:] = torch.nan
    step = torch.compile(program, backend="kvfix", options={"compiler": "aot_eager"})
    for p in (3, 4, 5, 9, 17, 33):
        torch.testing.assert_close(step(x, cache, p), program(x, cache, p))
    assert len(fxpass.reports()) <= 2


def test_elsewhere_the_package_is_as_it_was() -> None:
    torch.compile(lambda x: x, backend="kvfix", options={"compiler": "eager"})
    assert torch.backends.opt_einsum.get_opt_einsum() is opt_einsum
