"""The place of a view's element is where it is in the tensor that the view is of."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from graphs import traced
from torch import Tensor, fx

from fxpass.kernels.functions.places import flat, seen_through

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "split dims": lambda x: x.view(2, 3, 2, 2, 5, 2),
    "merged dims": lambda x: x.reshape(6, 40),
    "regrouped dims": lambda x: x.view(2, 12, 10),
    "ones": lambda x: x.unsqueeze(0).view(1, 2, 3, 1, 40).squeeze(3),
    "another order": lambda x: x.permute(2, 0, 1, -1).transpose(-1, 0),
    "one of a dim": lambda x: x.select(-2, -1).select(0, 1),
    "some of a dim": lambda x: x[:, -2:, 1:, ::3],
    "beyond the end": lambda x: x[:, -9:, 2:99, 1:8:2],
    "pieces": lambda x: x.split([1, 2], 1)[1].chunk(3, 2)[1],
    "all of a dim": lambda x: x.unbind(2)[3].unbind()[0],
    "repeated": lambda x: x.select(1, 0).unsqueeze(1).expand(-1, 5, -1, -1).flatten(1, 2),
    "a copy": lambda x: x.transpose(2, 3).contiguous().view(2, 3, 40).clone().unflatten(1, (3, 1)),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_places(view: Callable[[Tensor], Tensor]) -> None:
    x = torch.arange(240.0).view(2, 3, 4, 10)
    (result,) = traced(view, [x]).graph.find_nodes(op="output")[0].all_input_nodes
    wanted = view(x)
    names = tuple(f"i{d}" for d in range(wanted.dim()))
    node: fx.Node = result
    place = names
    while (seen := seen_through(node, place)) is not None:
        node, place = seen
    assert node.op == "placeholder"
    text = compile(flat(place, x.shape), "", "eval")
    for index in itertools.product(*map(range, wanted.shape)):
        assert eval(text, dict(zip(names, index, strict=True))) == wanted[index]


def test_an_op_that_is_no_view() -> None:
    (node,) = traced(lambda x: x * 2, [torch.ones(3)]).graph.find_nodes(op="output")[0].all_input_nodes
    assert seen_through(node, ("i0",)) is None
