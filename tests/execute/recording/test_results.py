"""Results of a recorded graph: views of what the caller has given, and copies that share memory as the results do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from fxpass.execute.recording.results import copied_groups, view_maker

aten = torch.ops.aten


def made(op: Any, *args: Any, of: Tensor) -> tuple[fx.Node, Callable[[Any], Any]]:
    graph = fx.Graph()
    given = graph.placeholder("cache")
    node = graph.call_function(op, (given, *args))
    given.meta["val"], node.meta["val"] = of, op(of, *args)
    return node, view_maker(node, {given: 0})


@pytest.mark.parametrize(
    "op, args",
    [
        (aten.to.dtype, (torch.float32,)),
        (aten.to.other, (torch.ones(()),)),
        (aten.type_as.default, (torch.ones(2),)),
        (aten.contiguous.default, ()),
    ],
    ids=lambda p: str(p),
)
def test_a_conversion_of_nothing_is_its_operand(op: Any, args: Any) -> None:
    cache = torch.rand(2, 3)
    node, make = made(op, *args, of=cache)
    node.target = None  # type: ignore[assignment]  # is not called
    assert make([cache]) is cache


@pytest.mark.parametrize("op, args", [(aten.alias.default, ()), (aten.select.int, (0, 1)), (aten.view.default, ([3, 2],))])
def test_a_view_is_another_tensor(op: Any, args: Any) -> None:
    cache = torch.rand(2, 3)
    _, make = made(op, *args, of=cache)
    view = make([cache])
    assert view is not cache and torch.equal(view, op(cache, *args)) and view._base is cache


def test_a_conversion_that_converts_is_made() -> None:
    cache = torch.rand(2, 3)
    _, make = made(aten.to.dtype, torch.float64, of=cache)
    assert make([cache]).dtype == torch.float64


def test_results_are_copies() -> None:
    pool = torch.rand(3)
    (first,) = copied_groups([[pool]])
    assert torch.equal(first, pool)
    assert first.data_ptr() != pool.data_ptr()


def test_results_that_share_memory_share_it_afterwards() -> None:
    pool = torch.rand(2, 3)
    whole, row = copied_groups([[pool, pool[1]]])
    assert torch.equal(whole, pool) and whole.data_ptr() != pool.data_ptr()
    row.zero_()
    assert whole[1].tolist() == [0, 0, 0]
    assert pool[1].any()
