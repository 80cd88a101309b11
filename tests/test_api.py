"""The pass alone on graphs of every origin, explanations, and what a report holds."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import (
    Attention,
    AttributeCache,
    BoundsCache,
    Custom,
    ItemCache,
    StartPos,
    graphs,
    kvfix,
    most_common,
    steps,
)
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

import fxpass
from fxpass import KvfixError, RewriteResult

aten = torch.ops.aten


def code_of(gm: fx.GraphModule) -> str:
    return str(gm.graph)


def targets(gm: fx.GraphModule) -> set[Any]:
    return {n.target for n in gm.graph.nodes if n.op == "call_function"}


# -- graphs from Dynamo


def captured(model: Any, calls: list[tuple[Any, ...]]) -> tuple[fx.GraphModule, list[Any]]:
    """The last graph that Dynamo makes of ``calls``, with its inputs as Dynamo gives them to a backend."""
    seen: list[tuple[fx.GraphModule, list[Any]]] = []

    def backend(gm: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        seen.append((gm, list(inputs)))
        return gm.forward

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch.no_grad():
        for call in calls:
            compiled(*call)
    return seen[-1]


class Decode(StartPos):
    """Looks at all keys, always: stock Dynamo can capture it whole."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: bool) -> Tensor:
        return super().attend(q, k, v, first=False)


def start_pos_graph() -> tuple[fx.GraphModule, list[Any]]:
    prompt, row = steps()[:2]
    return captured(Decode(), [(prompt, 0), (row, 4), (row, 5)])


def real_inputs(gm: fx.GraphModule, position: int, capacity: int = 16) -> list[Any]:
    """Values for the placeholders of ``start_pos_graph``: fresh ones, cut to what was traced."""
    generator = torch.Generator().manual_seed(3)
    out: list[Any] = []
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            value = node.meta["example_value"]
            static = isinstance(value, torch.Tensor)
            out.append(torch.randn(tuple(map(int, value.shape)), generator=generator) if static else position)
    return out


@torch.no_grad()
def test_rewrite_of_a_dynamo_graph():
    gm, inputs = start_pos_graph()
    result = fxpass.rewrite(gm, inputs)
    assert isinstance(result, RewriteResult)
    new, report = result
    assert (report.rewritten, report.refused, report.unfit) == (4, 0, "")
    assert aten.index_copy_.default in targets(new) and aten.copy_.default not in targets(new)
    assert [n.name for n in new.graph.nodes if n.op == "placeholder"] == [
        n.name for n in gm.graph.nodes if n.op == "placeholder"
    ]
    for position in (5, 9, 15):
        mine, theirs = real_inputs(gm, position), real_inputs(gm, position)
        (found,), (expected,) = new(*mine), gm(*theirs)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True) if isinstance(a, Tensor))


@torch.no_grad()
def test_rewrite_does_not_mutate_its_input():
    gm, inputs = start_pos_graph()
    before, meta = code_of(gm), [dict(n.meta) for n in gm.graph.nodes]
    fxpass.rewrite(gm, inputs)
    assert code_of(gm) == before
    assert [dict(n.meta) for n in gm.graph.nodes] == meta


def captured_with_reads() -> tuple[fx.GraphModule, list[Any]]:
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        return captured(_one_item, [(torch.randn(1, 4), torch.zeros(8, 4), torch.tensor([2]))])


def _one_item(x: Tensor, buffer: Tensor, index: Tensor) -> Tensor:
    return buffer.sum(0) * int(index[0].item()) + x


@torch.no_grad()
def test_rewrite_of_a_dynamo_graph_with_item():
    """A stock capture with ``capture_scalar_outputs`` holds ``item``: no number is asked for afterwards."""
    gm, inputs = captured_with_reads()
    assert any(n.target == "item" for n in gm.graph.nodes)
    new, report = fxpass.rewrite(gm, inputs)
    assert report.rewritten == 1 and not any("item" in str(n.target) for n in new.graph.nodes)
    mine = [torch.randn(1, 4), torch.randn(8, 4), torch.tensor([3])]
    order = [n.meta["example_value"].shape for n in gm.graph.nodes if n.op == "placeholder"]
    mine.sort(key=lambda t: order.index(t.shape))
    torch.testing.assert_close(new(*mine)[0], gm(*mine)[0])


# -- graphs from torch.export


class Step(torch.nn.Module):
    """A decode step with its cache and index tensor as buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(2, 8, 4))
        self.register_buffer("index", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        start = self.index[0].item()
        torch._check(start >= 0)
        torch._check(start + 1 <= 8)
        self.cache[:, start : start + 1] = x
        self.index += 1
        seen = self.cache[:, : start + 1]
        return torch.softmax(x @ seen.transpose(1, 2), -1) @ seen


def exported(flat: bool) -> tuple[torch.nn.Module, fx.GraphModule, list[Any]]:
    step = Step()
    program = torch.export.export(copy.deepcopy(step), (torch.randn(2, 1, 4),), strict=False)
    if not flat:
        return step, program.module(), [torch.randn(2, 1, 4)]
    return step, program.graph_module, [torch.zeros(2, 8, 4), torch.zeros(1, dtype=torch.int64), torch.randn(2, 1, 4)]


@torch.no_grad()
def test_rewrite_of_an_exported_module():
    """``ep.module()``: ``item``, an unbacked symbol, buffers as attributes."""
    step, gm, inputs = exported(flat=False)
    assert any("item" in str(n.target) for n in gm.graph.nodes)
    before = code_of(gm)
    new, report = fxpass.rewrite(gm, inputs)
    assert code_of(gm) == before
    assert report.unfit == "" and report.refused == 0, report
    assert sorted(s.kind for s in report.sites) == ["predicate", "predicate", "read", "write"]
    assert not any("item" in str(n.target) or "local_scalar" in str(n.target) for n in new.graph.nodes), new.graph
    for i in range(8):
        x = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(i))
        torch.testing.assert_close(new(x), step(x), rtol=1e-6, atol=1e-6)
    held = [t for t in new.state_dict().values() if t.shape == step.cache.shape]
    assert len(held) == 1 and torch.equal(held[0], step.cache)


@torch.no_grad()
def test_exported_assertions_are_kept():
    """The bounds check of a full cache is asked of a tensor instead of a number: same error, nothing written."""
    _, gm, (x,) = exported(flat=False)
    new, _ = fxpass.rewrite(gm, [x])
    for _ in range(8):
        new(x)
    before = {name: t.clone() for name, t in new.state_dict().items()}
    with pytest.raises(RuntimeError, match="u0 <= 7") as expected:
        gm(x)
    with pytest.raises(RuntimeError) as found:
        new(x)
    assert str(found.value).splitlines()[0] == str(expected.value).splitlines()[0]
    assert all(torch.equal(t, before[name]) for name, t in new.state_dict().items())


@torch.no_grad()
def test_rewrite_of_an_exported_graph():
    """``ep.graph_module``: the same with state as inputs."""
    step, gm, inputs = exported(flat=True)
    new, report = fxpass.rewrite(gm, inputs)
    assert report.unfit == "" and report.refused == 0, report
    assert not any("item" in str(n.target) or "local_scalar" in str(n.target) for n in new.graph.nodes), new.graph
    cache, index = torch.zeros(2, 8, 4), torch.zeros(1, dtype=torch.int64)
    for i in range(8):
        x = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(i))
        torch.testing.assert_close(new(cache, index, x)[0], step(x), rtol=1e-6, atol=1e-6)
        assert torch.equal(cache, step.cache) and torch.equal(index, step.index)


@torch.no_grad()
def test_rewrite_of_a_functional_graph():
    """Decomposed exports write with ``slice_scatter`` and hand the new state out."""
    program = torch.export.export(Step(), (torch.randn(2, 1, 4),), strict=False).run_decompositions({})
    gm = program.graph_module
    state: list[Any] = [torch.randn(2, 8, 4), torch.tensor([3])]
    new, report = fxpass.rewrite(gm, [*state, torch.randn(2, 1, 4)])
    x = torch.randn(2, 1, 4)
    expected, found = gm(*[t.clone() for t in state], x), new(*[t.clone() for t in state], x)
    assert len(expected) == len(found)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert report.rewritten == len(report.sites) > 0


# -- graphs from make_fx


def slide(buffer: Tensor, x: Tensor, position: int) -> Tensor:
    buffer[:, position : position + 1] = x
    return buffer[:, : position + 1].amax(1)


@torch.no_grad()
def test_rewrite_of_a_make_fx_graph():
    """Symbolic tracing leaves the int argument a placeholder with a symbol; that symbol is the position."""
    example = (torch.zeros(2, 8, 4), torch.randn(2, 1, 4), 5)
    gm = make_fx(slide, tracing_mode="symbolic", pre_dispatch=True)(*example)
    before = code_of(gm)
    new, report = fxpass.rewrite(gm, example)
    assert code_of(gm) == before
    assert report.unfit == "" and report.refused == 0, report
    assert sorted(s.kind for s in report.sites) == ["read", "write"]
    assert aten.index_copy_.default in targets(new)
    for position in (2, 5, 7):
        mine, theirs = torch.randn(2, 8, 4), None
        theirs, x = mine.clone(), torch.randn(2, 1, 4)
        found = new(mine, x, position)
        found = found[0] if isinstance(found, (tuple, list)) else found
        assert torch.equal(found, slide(theirs, x, position))
        assert torch.equal(mine, theirs)


# -- strictness


def refused_graph() -> tuple[fx.GraphModule, list[Any]]:
    row = steps()[1]
    cache = AttributeCache()
    return captured(Custom(most_common), [(row, cache), (row, cache), (row, cache)])


def test_rewrite_refuses_by_default_and_raises_when_strict():
    gm, inputs = refused_graph()
    with torch.no_grad():
        new, report = fxpass.rewrite(gm, inputs)
        assert [(s.kind, s.decision) for s in report.sites if s.decision == "refused"] == [("read", "refused")]
        assert report.refused == 1 and report.rewritten == 3  # both writes, and the sum over the values
        assert "index_copy_" in report.after
        with pytest.raises(KvfixError, match="no rule for aten.mode"):
            fxpass.rewrite(gm, inputs, strict=True)


def test_rewrite_of_an_unfit_graph():
    """Autograd: the result is a copy, and the report says why."""
    gm, inputs = start_pos_graph()
    with torch.enable_grad():
        new, report = fxpass.rewrite(gm, inputs)
        assert "grad is enabled" in report.unfit and new is not gm and code_of(new) == code_of(gm)
        with pytest.raises(KvfixError, match="grad is enabled"):
            fxpass.rewrite(gm, inputs, strict=True)


# -- explain, reports, reset


@torch.no_grad()
def test_explain():
    """The second step sees the position move; the third compiles nothing, and is explained all the same."""
    cache = ItemCache()
    prompt, *rows = steps()
    model = Attention()
    model(prompt, cache)
    step = fxpass.explain(model, compiler="eager")
    assert step(rows[0], cache).rewritten == 0
    report = step(rows[1], cache)
    assert report.rewritten > 0 and report.refused == 0
    assert cache.length == 6
    assert step(rows[2], cache) is report


@torch.no_grad()
def test_explain_of_what_is_compiled_already():
    """Nothing to explain is an error, not the report of something else."""
    model, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    fxpass.explain(model, compiler="eager")(x)
    with pytest.raises(RuntimeError, match="compiled no graph"):
        fxpass.explain(model, compiler="eager")(x)


def test_explain_raises_on_wrong_options_before_any_call():
    with pytest.raises(RuntimeError, match="nonsense"):
        fxpass.explain(torch.nn.Linear(4, 4), compiler="nonsense")


@torch.no_grad()
def test_one_report_a_graph():
    """Also where Dynamo starts over on the way: what it threw away is not reported."""
    model, cache = Attention(), ItemCache()
    compiled = kvfix(model)
    for x in steps():
        compiled(x, cache)
    made = fxpass.reports()
    assert [r.name for r in made] == ["graph 0", "graph 1"]
    assert len(made) == graphs()
    made.clear()
    assert len(fxpass.reports()) == 2


@torch.no_grad()
def test_reset():
    model, cache = Attention(), ItemCache()
    compiled, inputs = kvfix(model), steps()
    for x in inputs[:3]:
        compiled(x, cache)
    assert fxpass.reports()[-1].host_reads > 0
    last = fxpass.reports()[-1]
    fxpass.reset()
    assert fxpass.reports() == [] and last.host_reads == 0
    compiled(inputs[3], cache)
    assert fxpass.reports() == [] and last.host_reads == 1


@torch.no_grad()
def test_fields_of_a_report():
    model, cache = Attention(), BoundsCache()
    compiled = kvfix(model)
    for x in steps():
        compiled(x, cache)
    report = fxpass.reports()[-1]
    assert report.rewritten == len(report.sites) and report.refused == 0
    by_kind = {kind: [s for s in report.sites if s.kind == kind] for kind in ("predicate", "write", "read")}
    lines = {"predicate": "assert end <=", "write": "[:, :, start:end]", "read": "[:, :, :end]"}
    for kind, sites in by_kind.items():
        assert sites, kind
        for site in sites:
            path, line = site.source.rsplit(":", 1)
            assert os.path.basename(path) == "small_models.py"
            with open(path) as file:
                assert lines[kind] in file.read().splitlines()[int(line) - 1]
            assert site.position and site.reason == "" and site.decision == "rewritten"
    for kind in ("read", "write"):
        assert [s.buffer for s in by_kind[kind]] == ["cache.keys", "cache.values"]
        assert {s.dim for s in by_kind[kind]} == {2}
    assert "aten.copy_" in report.before and "aten.index_copy_" not in report.before
    assert "aten.index_copy_" in report.after
    assert report.before.count("aten.scaled_dot") == report.after.count("aten.scaled_dot") == 1
    assert any(line.startswith("+") and "index_copy_" in line for line in report.diff().splitlines())
    assert report.timings and all(t >= 0 for t in report.timings.values())
    assert "cache.keys" in str(report) and "rewritten" in str(report)
