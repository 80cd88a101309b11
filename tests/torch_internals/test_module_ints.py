"""Ints of modules: constants where they differ between modules, positions where one module's moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass


class Scaled(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.view(x.shape[0], self.heads, -1).sum(-1) * self.calls


@torch.no_grad()
def test_a_number_that_differs_between_modules_stays_a_constant() -> None:
    x = torch.randn(2, 8)
    for heads in (2, 4):
        model = Scaled(heads)
        model.calls = 1
        compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"})
        assert compiled(x).shape == (2, heads)
    assert all("input" not in line or "heads" not in line for r in fxpass.reports() for line in r.before.splitlines())


@torch.no_grad()
def test_a_counter_costs_one_more_graph() -> None:
    x, model = torch.randn(2, 8), Scaled(2)
    compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"})
    for call in range(1, 7):
        torch.testing.assert_close(compiled(x), x.view(2, 2, -1).sum(-1) * call)
    assert model.calls == 6
    assert counters["stats"]["unique_graphs"] == 2


@torch.no_grad()
def test_after_a_reset_it_is_a_constant_again() -> None:
    x, model = torch.randn(2, 8), Scaled(2)
    for compiler in ("eager", "aot_eager"):
        counters.clear()
        compiled = torch.compile(model, backend="kvfix", options={"compiler": compiler})
        for _ in range(3):
            compiled(x)
        assert counters["stats"]["unique_graphs"] == 2
        fxpass.reset()


def test_the_table_of_how_values_are_wrapped_has_the_hook() -> None:
    """Dynamo makes it when it first compiles, for whatever backend: kvfix may be installed later."""
    from torch._dynamo.variables.builder import VariableBuilder

    torch.compile(lambda x: x, backend="kvfix", options={"compiler": "eager"})
    assert VariableBuilder._type_dispatch()[int] is VariableBuilder.wrap_literal


class Numbered(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Stacked(Numbered):
    """The caches of all blocks are one tensor, and a block takes its own by its number."""

    def forward(self, caches: torch.Tensor, x: torch.Tensor, p: int) -> torch.Tensor:
        cache = caches[self.number]
        cache[:, p : p + 1] = x
        return cache[:, : p + 1].sum(1, keepdim=True)


class StackedInside(Numbered):
    def forward(self, caches: torch.Tensor, x: torch.Tensor, p: int) -> torch.Tensor:
        caches.transpose(0, 1)[:, self.number, p : p + 1] = x
        return caches.transpose(0, 1)[:, self.number, : p + 1].sum(1, keepdim=True)


class StackedAndScaled(Stacked):
    def forward(self, caches: torch.Tensor, x: torch.Tensor, p: int) -> torch.Tensor:
        return super().forward(caches, x, p) / (self.number + 1)


@torch.no_grad()
@pytest.mark.parametrize("block", [Stacked, StackedInside, StackedAndScaled])
def test_blocks_that_take_their_cache_by_their_number_share_graphs(block: type[Numbered]) -> None:
    """A pair of graphs for each of the first blocks, and one pair for all others."""
    torch.manual_seed(0)
    blocks = [block(i) for i in range(6)]
    compiled = [torch.compile(one, backend="kvfix", options={"compiler": "eager"}) for one in blocks]
    mine, eager = torch.zeros(6, 2, 8, 4), torch.zeros(6, 2, 8, 4)
    for p in range(1, 4):
        x = y = torch.rand(2, 1, 4)
        for ours, theirs in zip(compiled, blocks, strict=True):
            x, y = ours(mine, x, p), theirs(eager, y, p)
            torch.testing.assert_close(x, y)
    torch.testing.assert_close(mine, eager)
    report = fxpass.reports()[-1]
    assert counters["stats"]["unique_graphs"] <= 6
    assert [name for name, static, _ in report.parts if static] == ["core"] and not report.outside


@torch.no_grad()
def test_a_size_that_differs_between_many_modules_is_eagers() -> None:
    x = torch.randn(2, 16)
    for heads in (1, 2, 4, 8, 16, 2):
        model = Scaled(heads)
        model.calls = 1
        compiled = torch.compile(model, backend="kvfix", options={"compiler": "eager"})
        torch.testing.assert_close(compiled(x), x.view(2, heads, -1).sum(-1) * 2)
    assert counters["stats"]["unique_graphs"] <= 5 and not any(r.refused or r.unfit for r in fxpass.reports())
