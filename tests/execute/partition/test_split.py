"""The cut: growing sizes before and after, everything static in the middle, in the order that memory asks for."""

from __future__ import annotations

import torch
from graphs import traced_growing
from torch import fx

from fxpass.execute.partition.split import dependencies, split

aten = torch.ops.aten


def run(gm: fx.GraphModule, parts, inputs):
    values = dict(zip([n for n in gm.graph.nodes if n.op == "placeholder"], inputs, strict=True))
    for part in parts:
        values.update(zip(part.outputs, part.gm(*[values[n] for n in part.inputs]), strict=True))
    (results,) = next(n for n in gm.graph.nodes if n.op == "output").args
    return [values[r] for r in results]


def test_three_parts() -> None:
    def step(series, weight):
        last = (series / series.sum())[-1:].sum(0)
        out = torch.nn.functional.linear(last, weight)
        return out, series * out.sum()

    series, weight = torch.rand(6, 4), torch.rand(3, 4)
    gm = traced_growing(step, series, weight)
    parts = split(gm, set())
    assert [(p.name, p.static) for p in parts] == [("prologue", False), ("core", True), ("epilogue", False)]
    core = parts[1].gm
    assert any(n.target is aten.linear.default for n in core.graph.nodes)
    assert all(isinstance(s, int) for n in core.graph.nodes if n.op == "placeholder" for s in n.meta["val"].shape)
    series = torch.rand(9, 4)
    for ours, theirs in zip(run(gm, parts, [series, weight]), step(series, weight), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_graph_without_heavy_work_stays_whole() -> None:
    gm = traced_growing(lambda series: series * 2, torch.rand(6, 4))
    assert [(p.name, p.static) for p in split(gm, set())] == [("whole", False)]


def test_a_write_runs_after_earlier_reads_and_before_later_ones() -> None:
    def step(series, buffer, weight):
        before = buffer.sum()
        buffer.index_copy_(0, torch.arange(1), torch.nn.functional.linear(weight[:1], weight))
        return series * before, buffer.sum() + 0

    series, buffer, weight = torch.rand(5, 2), torch.rand(3, 3), torch.rand(3, 3)
    gm = traced_growing(step, series, buffer, weight)
    order = dependencies(gm.graph)
    write = next(n for n in gm.graph.nodes if n.target is aten.index_copy_.default)
    first, second = [n for n in gm.graph.nodes if n.target is aten.sum.default]
    assert first in order[write]
    assert write in order[second]
    expected = step(series, buffer.clone(), weight)
    for ours, theirs in zip(run(gm, split(gm, set()), [series, buffer, weight]), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
