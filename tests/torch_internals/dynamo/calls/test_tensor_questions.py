"""A question about whole index tensors, of which PyTorch gives a Python bool, is a guard and no graph break."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

ASKED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "equal": lambda i, j: torch.equal(i, j),
    "itself": lambda i, j: torch.equal(i, i),
    "a method": lambda i, j: i.equal(j),
    "of another size": lambda i, j: torch.equal(i, j[:1]),
    "of two dims": lambda i, j: i.view(1, 2).equal(j.view(2, 1)) or i.view(2, 1).equal(j.view(2, 1)),
    "of what is computed": lambda i, j: (i + 1).equal(j),
    "of the same numbers": lambda i, j: torch.equal(i * 0, j - j),
    "0-d": lambda i, j: torch.equal(i[0], j[1]),
    "of truth values": lambda i, j: torch.equal(i > 1, j > 1),
    "not zero": lambda i, j: i[0].is_nonzero(),
    "not zero, a function": lambda i, j: torch.is_nonzero(i[1] - j[1]),
    "in a branch": lambda i, j: "same" if i.equal(j) else "other",
}


@pytest.mark.parametrize("name", ASKED)
@torch.no_grad()
def test_the_answer_is_eagers_in_one_graph(name: str) -> None:
    def step(c: Tensor, i: Tensor, j: Tensor, x: Tensor) -> tuple[Tensor, object]:
        s = i[0]
        c[:, s : s + 1] = x
        out = c[:, : s + 1].sum(1), ASKED[name](i, j)
        i += 1
        return out

    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = ([torch.zeros(2, 8, 4), torch.tensor([1, 1]), torch.tensor([2, 2])] for _ in range(2))
    for _ in range(4):
        x = torch.rand(2, 1, 4)
        (got, answer), (want, right) = compiled(*ours, x), step(*theirs, x)
        torch.testing.assert_close(got, want)
        assert answer is right or answer == right and type(answer) is type(right)
    assert not counters["graph_break"] and not counters["unimplemented"]


@torch.no_grad()
def test_what_is_not_known_breaks_as_in_stock() -> None:
    def step(c: Tensor, s: int, x: Tensor) -> tuple[Tensor, bool]:
        c[:, s : s + 1] = x
        return c[:, : s + 1].sum(1), torch.equal(x, x * 1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = torch.zeros(2, 8, 4), torch.zeros(2, 8, 4)
    for s in range(1, 4):
        x = torch.rand(2, 1, 4)
        (got, same), (want, right) = compiled(ours, s, x), step(theirs, s, x)
        torch.testing.assert_close(got, want)
        assert same is right
