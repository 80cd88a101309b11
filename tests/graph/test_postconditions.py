"""Each post-condition is broken in turn, in a graph that meets them all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graphs import traced
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from fxpass.graph.numbers import symbols
from fxpass.graph.postconditions import Broken, check_core, check_graph, signature

aten = torch.ops.aten


def step(x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
    cache.add_(1)
    return x * 2, cache.sum(0)


def graph() -> fx.GraphModule:
    return traced(step, [torch.ones(2, 3), torch.ones(4, 3)])


def symbolic() -> fx.GraphModule:
    """A graph whose only input has a symbolic size."""
    return make_fx(lambda x: (x * 2,), tracing_mode="symbolic")(torch.ones(5, 3))


def results(gm: fx.GraphModule) -> list[fx.Node]:
    return list(gm.graph.output_node().args[0])  # type: ignore[arg-type]


def give(gm: fx.GraphModule, *given: object) -> None:
    gm.graph.output_node().args = (given,)


def read_a_number(gm: fx.GraphModule) -> None:
    with gm.graph.inserting_before(gm.graph.output_node()):
        element = gm.graph.call_function(aten._local_scalar_dense.default, (results(gm)[0],))
    element.meta["val"] = 3


def write_no_cache(gm: fx.GraphModule) -> None:
    (write,) = gm.graph.find_nodes(op="call_function", target=aten.add_.Tensor)
    write.replace_all_uses_with(write.args[0])  # type: ignore[arg-type]
    gm.graph.erase_node(write)


def give_one(gm: fx.GraphModule) -> None:
    give(gm, results(gm)[0])


def give_a_number(gm: fx.GraphModule) -> None:
    give(gm, 3, results(gm)[1])


def give_another_shape(gm: fx.GraphModule) -> None:
    give(gm, results(gm)[1], results(gm)[1])


def give_another_dtype(gm: fx.GraphModule) -> None:
    first = results(gm)[0]
    first.meta["val"] = first.meta["val"].to(torch.float64)


BROKEN: list[tuple[Callable[[fx.GraphModule], None], str]] = [
    (read_a_number, "still reads a number from the device"),
    (write_no_cache, "the mutated inputs changed"),
    (give_one, "the number of outputs changed"),
    (give_a_number, r"output 0 changed from torch.float32 \(2, 3\) to 3"),
    (give_another_shape, r"output 0 changed from torch.float32 \(2, 3\) to torch.float32 \(3,\)"),
    (give_another_dtype, "output 0 changed from torch.float32"),
]


@pytest.mark.parametrize("edit, said", BROKEN, ids=[edit.__name__ for edit, _ in BROKEN])
def test_what_a_rewrite_must_not_do(edit: Callable[[fx.GraphModule], None], said: str) -> None:
    gm = graph()
    before = signature(gm)
    check_graph(gm, before, may_read=False)
    edit(gm)
    with pytest.raises(Broken, match=said):
        check_graph(gm, before, may_read=False)


def test_what_is_cut_outside_may_be_longer() -> None:
    gm = graph()
    before = signature(gm)
    first = results(gm)[0]
    first.meta["val"] = first.meta["val"].new_empty(8, 3)
    check_graph(gm, before, may_read=False, cut={0: [0]})
    with pytest.raises(Broken, match="output 0 changed"):
        check_graph(gm, before, may_read=False, cut={0: [1]})


def test_a_refused_site_may_read_its_number() -> None:
    gm = graph()
    before = signature(gm)
    read_a_number(gm)
    check_graph(gm, before, may_read=True)


def test_a_symbol_needs_a_node() -> None:
    """As an argument, the name of a symbol would stand for nothing."""
    gm = symbolic()
    before, size = signature(gm), gm.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0]
    (product,) = gm.graph.find_nodes(op="call_function", target=aten.mul.Tensor)
    product.args = (product.args[0], size)
    with pytest.raises(Broken, match="takes a symbol that no node gives"):
        check_graph(gm, before, may_read=False)


def test_a_core_has_only_symbols_that_are_bound() -> None:
    gm = symbolic()
    rows, columns = (symbols(size) for size in gm.graph.find_nodes(op="placeholder")[0].meta["val"].shape)
    check_core(gm, rows | columns)
    with pytest.raises(Broken, match=f"in the static part depends on {rows.pop()}"):
        check_core(gm, columns)


def test_a_core_reads_no_number() -> None:
    gm = graph()
    check_core(gm, set())
    read_a_number(gm)
    with pytest.raises(Broken, match="reads a number from the device inside the static part"):
        check_core(gm, set())
