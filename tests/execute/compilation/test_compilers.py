"""Which parts are compiled: a few ops on small tensors cost less than the wrappers of a compiled function."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from graphs import traced
from torch import Tensor, fx
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

from fxpass.execute.compilation import compilers
from fxpass.options import Options


def position(x: Tensor) -> Tensor:
    return (x[0] + 1).reshape(1)


def many(x: Tensor) -> Tensor:
    for _ in range(compilers.FEW_OPS + 1):
        x = x + 1
    return x


def large(x: Tensor) -> Tensor:
    return x.new_zeros(compilers.FEW_ELEMENTS + 1)


def several(x: Tensor) -> Tensor:
    return torch.topk(x, 2)[0]


def nothing(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("of, tiny", [(position, True), (nothing, True), (many, False), (large, False), (several, False)])
def test_tiny(of: Callable[[Tensor], Tensor], tiny: bool) -> None:
    gm = traced(of, [torch.arange(4)])
    assert compilers.is_tiny(gm) == tiny
    with mock.patch.object(compilers, "_whole") as whole:
        run = compilers.compiler("inductor", {})(gm, [torch.arange(4)], None)
    assert whole.called != tiny
    if tiny:
        assert torch.equal(run(torch.arange(4)), of(torch.arange(4)))


def test_what_grows_is_not_tiny() -> None:
    gm = make_fx(lambda x: x + 1, tracing_mode="symbolic")(torch.arange(4))
    assert not compilers.is_tiny(gm)


@pytest.mark.parametrize("dtype, filled", [(torch.int64, True), (torch.int32, False)])
def test_a_number_is_written_at_once(dtype: torch.dtype, filled: bool) -> None:
    gm = traced(lambda buffer: buffer.copy_(torch.full([], 3, dtype=dtype)), [torch.tensor(0)])
    run = compilers.compiler("inductor", {})(gm, [torch.tensor(0)], None)
    buffer = torch.tensor(0)
    run(buffer)
    targets = {n.target for n in gm.graph.nodes}
    assert buffer == 3 and (torch.ops.aten.fill_.Scalar in targets) == filled
    assert (torch.ops.aten.full.default in targets) != filled


@pytest.mark.parametrize("number", [
    lambda n, m: torch.sym_sum((n, m, 3)), lambda n, m: torch.sym_sum([n]), lambda n, m: 2 + torch.sym_not(n > 4),
    lambda n, m: torch.sym_max(n, m), lambda n, m: torch.sym_sum((n, torch.sym_sum((m, m)))) // 2])  # fmt: skip
def test_a_graph_with_functions_of_numbers_runs_as_stock_in_one_piece(number: Callable[[int, int], int]) -> None:
    """Dynamo has put them in for numbers that were symbols, and traces the graph anew, for what are constants."""
    tracer = fx.Tracer()
    graph = tracer.trace(lambda x: (x * number(x.size(0), x.size(1)),))
    graph.owning_module = None
    gm = fx.GraphModule({}, graph)
    counters.clear()
    x = torch.rand(5, 3)
    (result,) = compilers.as_stock(gm, Options(compiler="aot_eager"))(x)
    torch.testing.assert_close(result, x * number(5, 3))
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    assert [n.target for n in gm.graph.nodes] == [n.target for n in graph.nodes]


def test_a_running_sum_is_computed_where_it_is_read() -> None:
    patches = compilers._for_sums(traced(lambda x: x.cumsum(-1) * 2, [torch.ones(3)]))
    assert patches == {"realize_opcount_threshold": compilers.MOST_AGAIN}
    assert compilers._for_sums(traced(lambda x: x.sum(-1) * 2, [torch.ones(3)])) == {}
