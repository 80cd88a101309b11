"""What is filled with the number of a tensor has eager's dtype, in the graph of a step as outside of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

FILLED: dict[str, Callable[[Tensor], Tensor]] = {
    "an element": lambda i: torch.full((2,), i[0]),
    "by name": lambda i: torch.full(size=(2,), fill_value=i[0]),
    "of 32 bits": lambda i: torch.full((2,), i[0].int()),
    "0-d": lambda i: torch.full((2,), i.sum()),
    "computed": lambda i: torch.full((2, 1), i[0] * 2 + 1),
    "a truth value": lambda i: torch.full((2,), i[0] > 2),
    "a float": lambda i: torch.full((2,), i[0] / 2),
    "with a dtype": lambda i: torch.full((2,), i[0], dtype=torch.float64),
}


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", FILLED)
@torch.no_grad()
def test_as_in_eager(name: str, compiler: str) -> None:
    def step(c: Tensor, i: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        c[:, i[0] : i[0] + 1] = x
        out = FILLED[name](i), c[:, : i[0] + 1].sum(1)
        i += 1
        return out

    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    ours, theirs = ([torch.zeros(2, 8, 4), torch.zeros(1, dtype=torch.int64)] for _ in range(2))
    for _ in range(4):
        x = torch.rand(2, 1, 4)
        for a, b in zip(compiled(*ours, x), step(*theirs, x), strict=True):
            torch.testing.assert_close(a, b)


@torch.no_grad()
def test_rows_at_such_an_index() -> None:
    """As an index, numbers of another dtype would be an error."""

    def step(c: Tensor, i: Tensor, x: Tensor) -> Tensor:
        c[torch.arange(2), torch.full((2,), i[0])] = x[:, 0]
        out = c[:, : i[0] + 1].sum(1)
        i += 1
        return out

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = ([torch.zeros(2, 8, 4), torch.zeros(1, dtype=torch.int64)] for _ in range(2))
    for _ in range(4):
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(*ours, x), step(*theirs, x))
        assert torch.equal(ours[0], theirs[0])
