"""Tensors whose number is known, where PyTorch or Python takes a number: a size, a diagonal, a split, a place, a factor."""

from __future__ import annotations

import contextlib
import math
import operator
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import InternalTorchDynamoError
from torch._dynamo.utils import counters

from fxpass import KvfixWarning
from fxpass.torch_internals.dynamo.calls.operands import _taken

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
    "named size": lambda c, s, e: c[:, :e].sum(1) + torch.ones(size=(2, e)).sum(),
    "named end": lambda c, s, e: c[:, :e].sum(1) + torch.arange(end=e).sum(),
    "named diagonal": lambda c, s, e: torch.ones(1, 8).triu(diagonal=s + 1) @ c,
    "named place": lambda c, s, e: c.narrow(dim=1, start=s, length=1).sum(1) + c.select(dim=1, index=s),
    "factor": lambda c, s, e: torch.add(c[:, s], c[:, 0], alpha=e),
    "factor of a method": lambda c, s, e: c[:, s].sub(c[:, 0], alpha=e),
    "filled": lambda c, s, e: c.new_full((2, 4), e) + c[:, s],
    "repeated": lambda c, s, e: c[:, s].repeat_interleave(e, 0).sum(0),
    "list of a tensor's": lambda c, s, e: c.tensor_split([e], 1)[0].sum(1),
    "root": lambda c, s, e: c[:, :e].sum(1) / math.sqrt(e),
    "floor": lambda c, s, e: c[:, :e].sum(1) * math.floor(s) + math.ceil(e),
    "cosine": lambda c, s, e: c[:, s] * math.cos(e),
    "not": lambda c, s, e: c[:, s] + operator.not_(s),
    "range": lambda c, s, e: c[:, s] + len([j for j in range(min(e, 1))]),
    "index": lambda c, s, e: c[:, s] * s.__index__(),
}


SAID = {"split": "KV130", "list of a tensor's": "KV130", "factor": "KV127", "factor of a method": "KV127", "filled": "KV127",
        "cosine": "KV128"}  # fmt: skip
"""What is left outside of the core, or refused."""


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
    with pytest.warns(KvfixWarning, match=SAID[use]) if use in SAID else contextlib.nullcontext():
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
    assert _taken("index_select").placed == ("", "int", "")
    assert not {"int", "scalar"} & {*_taken("add").placed[:2], *_taken("pow").placed}
    assert _taken("add").named["alpha"] == "scalar"
    assert _taken("tensor_split").placed[1] == "ints" and _taken("cat").placed == ("", "int")


@pytest.mark.parametrize("use", [lambda s: math.log(s + 1), lambda s: math.ceil(s / 4), lambda s: [3, 5][s % 2]])
def test_without_a_symbol_the_graph_breaks(use: Callable[[Tensor], float]) -> None:
    """Or has one value of it; however many steps there are, no graph is made for each."""

    def step(c: Tensor, i: Tensor) -> Tensor:
        s = i[0]
        c[:, s : s + 1] += 1
        i += 1
        return c[:, : s + 1].sum() * use(s)

    counters.clear()
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    c, i, d, j = torch.zeros(2, 16), torch.tensor([1]), torch.zeros(2, 16), torch.tensor([1])
    for _ in range(12):
        assert compiled(c, i) == step(d, j) and torch.equal(c, d)
    assert counters["stats"]["unique_graphs"] <= 5


FAULTS: dict[str, Callable[[Tensor], int]] = {
    "place of a range": lambda s: range(10)[s],
    "length of a range": lambda s: len(range(0, s, 2)),
    "all of a range": lambda s: [*range(s, s + 1)][0],
    "unpacked": lambda s: next(iter((*range(s, s + 2),))),
    "sizes": lambda s: torch.Size([1, s]).numel(),
}


@pytest.mark.parametrize("use", FAULTS)
def test_where_dynamo_asserts_a_constant_the_frame_is_compiled_as_stock(use: str) -> None:
    """Dynamo fails on a number that moves, in stock too; there, the graph breaks before it."""

    def step(c: Tensor, i: Tensor) -> Tensor:
        s = i[0]
        c[:, s : s + 1] += 1
        i += 1
        return c[:, : s + 1].sum() + FAULTS[use](s)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    c, i, d, j = torch.zeros(2, 8), torch.tensor([2]), torch.zeros(2, 8), torch.tensor([2])
    raises = use == "place of a range" and torch.__version__ < "2.13"  # type: ignore[operator]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InternalTorchDynamoError) if raises else contextlib.nullcontext():  # as in stock
            for _ in range(4):
                assert compiled(c, i) == step(d, j) and torch.equal(c, d)
    assert use != "place of a range" or raises or any("KV602" in str(w.message) for w in caught)


@pytest.mark.parametrize("use", [lambda x, s: torch.add(x, x, alpha=s), lambda x, s: math.trunc(s[0])])
def test_what_is_no_number_in_eager_is_none(use: Callable[[Tensor, Tensor], Tensor]) -> None:
    """A tensor with dims is no number, and not every function of numbers takes a tensor."""

    def step(x: Tensor, i: Tensor) -> Tensor:
        x[i[0] : i[0] + 1] += 1
        return use(x, i)

    with pytest.raises(TypeError):
        step(torch.ones(4, 4), torch.tensor([1]))
    with pytest.raises((TypeError, torch._dynamo.exc.TorchRuntimeError)):
        torch.compile(step, backend="kvfix", options={"compiler": "eager"})(torch.ones(4, 4), torch.tensor([1]))
