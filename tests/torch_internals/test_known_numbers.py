"""Tensors whose number is known, where PyTorch takes a number: a size, a diagonal, a split, a place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from fxpass import KvfixWarning
from fxpass.torch_internals.dynamo.indexing import _takes_numbers

USES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "split": lambda c, s, e: c.split([e, 8 - e], 1)[0].sum(1),
    "full": lambda c, s, e: (torch.full((1, e), 0.5) @ c[:, :e]).sum(1),
    "zeros": lambda c, s, e: c[:, :e].sum(1) + torch.zeros(2, e).sum(),
    "new_ones": lambda c, s, e: c[:, :e].sum(1) + c.new_ones((2, e)).sum(),
    "triu": lambda c, s, e: torch.ones(1, 8).triu(s + 1) @ c,
    "tril": lambda c, s, e: torch.tril(torch.ones(8, 8), diagonal=0)[:, :e] @ c[:, :e],
    "expand": lambda c, s, e: (c[:, :1].expand(2, e, 4)).sum(1),
    "place": lambda c, s, e: c[:, e - 1].clone(),
    "only place": lambda c, s, e: c.transpose(0, 1)[s] * 2,
    "select": lambda c, s, e: c.select(1, s) + 1,
    "gathered": lambda c, s, e: c.index_select(1, s.reshape(1)) + 1,
}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("use", USES)
def test_no_break(use: str, dtype: torch.dtype) -> None:
    def step(c: Tensor, i: Tensor, x: Tensor) -> Tensor:
        s, e = i[0].clone(), i[0] + 1
        c[:, s:e] = x
        i += 1
        return USES[use](c, s, e)

    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = torch.zeros(2, 8, 4), torch.zeros(2, 8, 4)
    i, j = torch.zeros(1, dtype=dtype), torch.zeros(1, dtype=dtype)
    with pytest.warns(KvfixWarning, match="KV130") if use == "split" else contextlib.nullcontext():
        for _ in range(5):
            x = torch.rand(2, 1, 4)
            torch.testing.assert_close(compiled(ours, i, x), step(theirs, j, x))
            assert torch.equal(ours, theirs) and torch.equal(i, j)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= 2


def test_a_written_place_is_written() -> None:
    def step(c: Tensor, i: Tensor) -> Tensor:
        s = i[0]
        c[s] = c[s] + 1
        i += 1
        return c.sum()

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    c, i = torch.zeros(6, 4), torch.tensor([1])
    for n in range(4):
        assert compiled(c, i) == 4 * (n + 1)


def test_tensors_that_an_operator_takes_as_tensors_stay() -> None:
    assert _takes_numbers("index_select") == (False, True, False)
    assert not any(_takes_numbers("add")) and not any(_takes_numbers("pow"))
    assert _takes_numbers("full") == (True, False)
