"""Which results are joined part by part."""

from __future__ import annotations

import torch
from graphs import same, traced

from fxpass.kernels.for_inductor.joined_results import join_results

CAT = torch.ops.aten.cat.default


def test_results_of_one_dim() -> None:
    def fn(x, y):
        inner = torch.cat([x, y.view(-1)])
        return torch.cat([x + 1, y.view(-1), inner.sum().view(1)]), torch.cat([y, y], 1), torch.cat([x, x.double()])

    args = [torch.randn(3), torch.randn(2, 2)]
    gm, before = traced(fn, args), traced(fn, args)
    join_results(gm.graph)
    gm.graph.lint()
    gm.recompile()
    first, second, third = gm.graph.output_node().all_input_nodes
    assert (first.target, second.target, third.target) == (torch.ops.kvfix.join.default, CAT, CAT)
    assert len(gm.graph.find_nodes(op="call_function", target=CAT)) == 3  # what is not a result is left to Inductor
    assert same(before, gm, args)
