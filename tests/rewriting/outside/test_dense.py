"""Results that are cut along one dim leave the graph in one flat tensor, whatever the length is."""

from __future__ import annotations

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from fxpass.rewriting import Around, dense_results
from fxpass.rewriting.outside import dense
from fxpass.rewriting.outside.formulas import Size

CAPACITY = 7


def double_and_negative(shape: tuple[int, ...], length: int) -> fx.GraphModule:
    graph, mode = fx.Graph(), FakeTensorMode()
    x, rows = graph.placeholder("x"), graph.placeholder("rows")
    results = [graph.call_function(torch.ops.aten.mul.Tensor, (x, 2)), graph.call_function(torch.ops.aten.neg.default, (x,))]
    graph.output(tuple(results))
    rows.meta["val"] = mode.from_tensor(torch.empty(length))
    for node in (x, *results):
        node.meta["val"] = mode.from_tensor(torch.empty(shape))
    return fx.GraphModule(torch.nn.Module(), graph)


@pytest.mark.parametrize("size", [1, 2**31])
@pytest.mark.parametrize("length", range(CAPACITY + 1))
@pytest.mark.parametrize(("shape", "dim"), [((2, CAPACITY, 3), 1), ((CAPACITY,), 0), ((3, CAPACITY), 1), ((CAPACITY, 4), 0)])
def test_what_is_valid_stands_in_front(shape, dim, length, size, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    kind = dense._dtype_for(size)
    monkeypatch.setattr(dense, "_dtype_for", lambda _: kind)
    gm = double_and_negative(shape, length)
    cuts = {place: ((dim, Size(1, 0)),) for place in range(2)}
    around = dense_results(gm, Around(cuts=cuts))
    x = torch.randn(shape)
    flat = gm(x, torch.empty(length))
    assert flat[0] is flat[1]
    for place, expected in enumerate((x * 2, -x)):
        assert torch.equal(around.dense[place].of(flat[place], length), expected.narrow(dim, 0, length))


def test_places_are_of_a_dtype_that_holds_them() -> None:
    assert dense._dtype_for(2**30 - 1) is torch.int32 and dense._dtype_for(2**30) is torch.int64
    assert dense._dtype_for(torch.SymInt) is torch.int64


def test_they_are_put_together_where_they_are_last_written() -> None:
    gm = double_and_negative((2, CAPACITY), 3)
    doubled, _ = (n for n in gm.graph.nodes if n.op == "call_function")
    with gm.graph.inserting_before(gm.graph.output_node()):
        gm.graph.call_function(torch.ops.aten.add_.Tensor, (doubled, 1)).meta["val"] = doubled.meta["val"]
        after = gm.graph.call_function(torch.ops.aten.relu.default, (doubled,))
    after.meta["val"] = doubled.meta["val"].clone()
    around = dense_results(gm, Around(cuts={place: ((1, Size(1, 0)),) for place in range(2)}))
    x = torch.randn(2, CAPACITY)
    (flat, _) = gm(x, torch.empty(3))
    for place, expected in enumerate((x * 2 + 1, -x)):
        assert torch.equal(around.dense[place].of(flat, 3), expected[:, :3])
    (write,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.add_.Tensor)
    (flat_node,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.index_select.default)
    assert write < flat_node < after
