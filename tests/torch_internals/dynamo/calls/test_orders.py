"""A few numbers are sorted under guards; where each of many orders would have a graph, there is a break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass


def _in_place(numbers: list[Any]) -> list[Any]:
    numbers.sort(reverse=True)
    return numbers


ORDERS: dict[str, Callable[[int, Tensor], Any]] = {
    "sorted": lambda p, k: sorted([p, 7, 3]),
    "in place": lambda p, k: _in_place([p, 7, p + 2]),
    "of floats": lambda p, k: sorted((p / 2, 3.5), reverse=True),
    "as bounds": lambda p, k: k[:, slice(*sorted([p, 7]))].sum(1),
    "equal ones": lambda p, k: [n + 0 for n in sorted([7, p, 7])],
}
MANY: dict[str, Callable[[int, Tensor], Any]] = {
    "long": lambda p, k: sorted([p, 2, 4, 6, 8]),
    "several that move": lambda p, k: sorted([p, int(k.shape[1]), int(k[0, 0])]),
    "by a key": lambda p, k: sorted([p, 7, 3], key=lambda n: -n),
}


def sort(order: Callable[[int, Tensor], Any]) -> None:
    """Eight steps beside eager."""

    def step(k: Tensor, x: Tensor, at: Tensor) -> Any:
        p = int(at)
        k[:, p : p + 1] = x
        at += 1
        return order(p, k), k[:, : p + 1].mean(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = ((torch.zeros(2, 16), torch.tensor(1)) for _ in range(2))
    for _ in range(8):
        x = torch.rand(2, 1)
        torch.testing.assert_close(compiled(ours[0], x, ours[1]), step(theirs[0], x, theirs[1]))
    assert not any(report.faults for report in fxpass.reports())


@torch.no_grad()
@pytest.mark.parametrize("name", ORDERS)
def test_a_few_numbers_are_sorted_under_guards(name: str) -> None:
    sort(ORDERS[name])
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] <= 4


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", MANY)
def test_many_orders_are_a_break_as_in_stock(name: str) -> None:
    sort(MANY[name])
    assert counters["graph_break"]
