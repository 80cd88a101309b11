"""A truth value that moves, ``p > 6``: where Python asks for it, a guard holds it; in a tensor, it stays one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass

Body = Callable[[int, Tensor], Any]

ASKED: dict[str, Body] = {
    "is": lambda p, x: x * 2 if (p > 6) is True else x,
    "is not": lambda p, x: x * 2 if (p > 6) is not False else x,
    "is none": lambda p, x: x * 2 if (p > 6) is None else x * (p > 6),
    "equal": lambda p, x: x * 2 if (p > 6) == True else x,  # noqa: E712
    "equal to one": lambda p, x: x * 2 if (p > 6) == 1 else x,
    "not equal": lambda p, x: x * 2 if (p > 6) != False else x,  # noqa: E712
    "equal to another": lambda p, x: x * 2 if (p > 6) == (p > 20) else x,
    "less": lambda p, x: x * 2 if (p > 6) < (p > 3) else x,
    "either or": lambda p, x: x * 2 if (p > 6) ^ (p > 20) else x,
    "in a tuple": lambda p, x: x * 2 if (p > 6, p > 3) == (True, True) else x,
    "among others": lambda p, x: x * 2 if (p > 6) in (True,) else x,
    "sought": lambda p, x: x * 2 if True in [p > 6, p > 20] else x,
    "a place": lambda p, x: x * (2.0, 3.0)[p > 6],
    "a place of tensors": lambda p, x: [x * 2, x * 3][p > 6],
    "a bound": lambda p, x: x[:, (p > 6) :],
}
BRANCHES: dict[str, Body] = {
    "tensor": lambda p, x: x * 2 if torch.tensor(p > 6) else x,
    "not a tensor": lambda p, x: x * 2 if not torch.tensor(p > 6) else x,
    "all": lambda p, x: x * 2 if torch.tensor([p > 6, p > 2]).all() else x,
    "both": lambda p, x: x * 2 if torch.tensor((p > 6) & (p > 2)) else x,
    "as a tensor": lambda p, x: x * 2 if torch.as_tensor(p) > 6 else x,
    "floats": lambda p, x: x * 2 if torch.tensor([p / 4, 0.5]).max() > 1.6 else x,
    "of a dtype": lambda p, x: x * 2 if torch.tensor(p, dtype=torch.float64) > 6.5 else x,
    "the largest": lambda p, x: x * 2 if torch.stack([torch.tensor(p), torch.tensor(6)]).argmax() == 0 else x,
}
TENSORS: dict[str, Body] = {
    "tensor": lambda p, x: x * torch.tensor(p > 6),
    "of several": lambda p, x: x * torch.tensor([p > 6, p > 8]).sum(),
    "filled": lambda p, x: torch.full((2,), p > 6),
    "scalar": lambda p, x: torch.scalar_tensor(p > 6),
    "as a tensor": lambda p, x: x * torch.as_tensor([p, p + 1]).sum() + torch.as_tensor(p > 6),
    "chosen": lambda p, x: torch.where(torch.tensor(p > 6), x, x * 2),
}


def graphs(body: Body, origin: str) -> int:
    """How many graphs a prompt of four rows and six steps have, each compared with eager."""

    def step(k: Tensor, x: Tensor, at: Tensor, p: int) -> tuple[Any, Tensor]:
        p = int(at) if origin == "tensor" else p
        k[:, p : p + x.shape[1]] = x
        at += x.shape[1]
        return body(p, x), k[:, : p + x.shape[1]].mean(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = ((torch.zeros(2, 16), torch.tensor(0)) for _ in range(2))
    for n in (4, 1, 1, 1, 1, 1, 1):
        x, p = torch.rand(2, n), int(theirs[1])
        torch.testing.assert_close(compiled(ours[0], x, ours[1], p), step(theirs[0], x, theirs[1], p))
    assert not counters["graph_break"] and not any(report.faults for report in fxpass.reports())
    return counters["stats"]["unique_graphs"]


@torch.no_grad()
@pytest.mark.parametrize("origin", ["argument", "tensor"])
@pytest.mark.parametrize("name", ASKED)
def test_a_truth_that_is_asked_for_is_guarded(name: str, origin: str) -> None:
    assert graphs(ASKED[name], origin) <= 3


@torch.no_grad()
@pytest.mark.parametrize("origin", ["argument", "tensor"])
@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_on_a_tensor_of_numbers_is_guarded(name: str, origin: str) -> None:
    assert graphs(BRANCHES[name], origin) == 3


@torch.no_grad()
@pytest.mark.parametrize("origin", ["argument", "tensor"])
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_of_truths_costs_no_graph(name: str, origin: str) -> None:
    assert graphs(TENSORS[name], origin) == 2
