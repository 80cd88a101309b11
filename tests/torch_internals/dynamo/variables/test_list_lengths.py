"""Positions that are the length of a list on the host."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass


def step(cache: Tensor, x: Tensor, p: int) -> Tensor:
    cache[:, p : p + 1] = x
    return cache[:, : p + 1].sum(1)


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = []

    def forward(self, cache: Tensor, x: Tensor, tokens: Any) -> Tensor:
        return step(cache, x, len(tokens))


class OfModule(Counted):
    def forward(self, cache: Tensor, x: Tensor, tokens: Any) -> Tensor:
        return step(cache, x, len(self.tokens)) * len(self.tokens)


class InItem(Counted):
    def forward(self, cache: Tensor, x: Tensor, tokens: Any) -> Tensor:
        return step(cache, x, len(tokens[0]))


class IfAny(Counted):
    """An empty list is false."""

    def forward(self, cache: Tensor, x: Tensor, tokens: Any) -> Tensor:
        return step(cache, x, len(tokens) if tokens else 0)


class Keyed(Counted):
    """The keys of the dict are guarded on, too."""

    def forward(self, cache: Tensor, x: Tensor, tokens: Any) -> Tensor:
        return step(cache, x, len(tokens)) + sum(tokens.values()) if tokens else step(cache, x, 0)


class LooksInto(Counted):
    def forward(self, cache: Tensor, x: Tensor, tokens: Any) -> Tensor:
        return step(cache, x, len(tokens)) + sum(tokens)


class Appends(Counted):
    def forward(self, cache: Tensor, x: Tensor, tokens: Any) -> Tensor:
        p = len(self.tokens)
        self.tokens.append(1)
        return step(cache, x, p) + len(self.tokens)


@torch.no_grad()
def graphs(model: type[Counted], tokens: Callable[[int], Any], backend: str = "kvfix") -> int:
    """Decode, at one length twice and a shorter one in between, and compare each step with eager."""
    torch._dynamo.reset()
    counters.clear()
    ours, stock, mine, eager = model(), model(), torch.zeros(2, 16, 4), torch.zeros(2, 16, 4)
    compiled = torch.compile(ours, backend=backend, options={"compiler": "eager"} if backend == "kvfix" else None)
    for n in (0, 1, 2, 3, 4, 2, 4):
        if model is not Appends:
            ours.tokens, stock.tokens = [7] * n, [7] * n
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(mine, x, tokens(n)), stock(eager, x, tokens(n)))
        torch.testing.assert_close(mine, eager)
    assert ours.tokens == stock.tokens
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    "model, tokens",
    [
        (Counted, lambda n: [0] * n),
        (Counted, lambda n: (0,) * n),
        (Counted, lambda n: dict.fromkeys(range(n), 0)),
        (Counted, lambda n: collections.deque([0] * n)),
        (OfModule, lambda n: []),
        (InItem, lambda n: [[0] * n]),
        (IfAny, lambda n: [0] * n),
    ],
)
def test_the_length_of_a_list_is_a_number(model: type[Counted], tokens: Callable[[int], Any]) -> None:
    assert graphs(model, tokens) == 2
    report = fxpass.reports()[-1]
    assert [name for name, static, _ in report.parts if static] == ["core"] and not report.outside and report.rewritten


@pytest.mark.filterwarnings("default::fxpass.KvfixWarning")  # each length is a graph
@pytest.mark.parametrize(
    "model, tokens",
    [(LooksInto, lambda n: [1] * n), (Appends, lambda n: []), (Keyed, lambda n: dict.fromkeys(map(str, range(n)), 1))],
)
def test_of_a_list_that_is_looked_into_it_is_as_in_stock(model: type[Counted], tokens: Callable[[int], Any]) -> None:
    assert graphs(model, tokens) <= graphs(model, tokens, "eager")
