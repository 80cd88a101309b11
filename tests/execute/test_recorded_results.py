"""Results of a recorded graph that lie in the memory of its inputs are made from what the caller has given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from fxpass.execute.recording.results import view_maker

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
