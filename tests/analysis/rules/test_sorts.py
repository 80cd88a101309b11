"""Places of equal elements: on a GPU a sort that is not stable leaves them open, so where they are used it is refused there."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpass.analysis.rules.sorts import _same_order

aten = torch.ops.aten


@pytest.mark.parametrize("device, used, known", [
    ("cpu", (0, 1), True), ("cuda", (0,), True), ("cuda", (1,), False), ("cuda", (0, 1), False), ("cuda", (), True),
])  # fmt: skip
def test_the_order_of_equal_elements(device: str, used: tuple[int, ...], known: bool) -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    with FakeTensorMode():
        x.meta["val"] = torch.empty(2, 16, device=device)
    node = graph.call_function(aten.sort.default, (x, 1))
    graph.output([graph.call_function(aten.neg.default, (graph.call_function(operator.getitem, (node, i)),)) for i in used])
    assert _same_order(node, x) == known
    places = graph.call_function(aten.argsort.default, (x, 1))
    assert _same_order(places, x) == (device == "cpu")
