"""Ints of modules: constants where they differ between modules, positions where one module's moves."""

from __future__ import annotations

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
