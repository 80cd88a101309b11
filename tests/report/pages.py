"""Reports to make pages of: a model of strange names in three parts, and one whose layer is there many times."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn

import fxpass
from fxpass import Report
from fxpass.report.drawing import Drawings
from fxpass.report.lazy import Lazy

MARKUP = "<img src=x onerror=hit=1></script><!--"
F = nn.functional


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("k", torch.zeros(2, 16, 8))
        self.project = nn.Linear(8, 8)

    def forward(self, x: Tensor, start: int) -> Tensor:
        self.k[:, start : start + 1] = self.project(x)
        rows = self.k[:, : start + 1]
        return x + F.scaled_dot_product_attention(x, rows, rows)


class Model(nn.Module):
    """A series that grows is scaled; layers; a slice that is refused, and what follows from it."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({name: Layer()}) for name in names])
        self.register_buffer("last", torch.zeros(2, 16, 8))

    def forward(self, series: Tensor, start: int) -> tuple[Tensor, Tensor]:
        scale = series.abs().mean()
        x = series[:, -1:] / scale
        for named in self.layers:
            for layer in named.values():
                x = layer(x, start)
        self.last[:, start : start + 1] = x
        middle = self.last[:, : start + 1].mode(1).values
        return x * scale + middle[:, None], torch.cat([series, x], 1)


@functools.cache
def reports(names: tuple[str, ...] = (MARKUP, "b")) -> list[Report]:
    """Of a first call, and of a step."""
    model, series = Model(list(names)), torch.rand(2, 3, 8)
    compiled: Any = torch.compile(model, backend="kvfix", options={"compiler": "eager", "verify": 0})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", fxpass.KvfixWarning)
        for start in range(1, 4):
            _, series = compiled(series, start)
    return fxpass.reports()


def deep(layers: int, ops: int) -> Report:
    """A report with as many layers of as many ops, each of which has a slice whose place a mask takes."""
    before, after = nx.DiGraph(), nx.DiGraph()
    flow = nx.DiGraph([("p", f"slice{i}") for i in range(layers)])
    flow.add_edges_from((f"slice{i}", f"op_{i}_{ops - 1}") for i in range(layers))
    nx.set_node_attributes(flow, {name: {"node": name, "kind": "site"} for name in flow})
    flow.nodes["p"]["kind"] = "position"
    sites = []
    for graph in (before, after):
        _node(graph, "p", [], "i64[]", kind="input")
        _node(graph, "x", [], "f32[2, 8]", kind="input")
        last = "x"
        for i in range(layers):
            path = ((f"layers.{i}", "Layer"), (f"layers.{i}.attention", "Attention"))
            first = last
            for j in range(ops - 1):
                last = _node(graph, f"op_{i}_{j}", [last], "f32[2, 8]", path[: 1 + j % 2])
            cut = _node(graph, f"slice{i}", ["p", first], "f32[2, p]", path) if graph is before else _mask(graph, i, path)
            last = _node(graph, f"op_{i}_{ops - 1}", [last, cut], "f32[2, 8]", path)
        _node(graph, "output", [last], "none", kind="output")
    for i in range(layers):
        sites.append(fxpass.Site("read", f"layers.{i}.k", 1, "p", "m.py:3", "rewritten", node=f"slice{i}"))
    core = after.subgraph(name for name in after if name.startswith(("op", "lt")))
    drawings = Drawings(Lazy.of(before), Lazy.of(after), [("core", True, Lazy.of(core))])
    return Report("deep", sites, parts=[("core", True, len(after))], flow=flow, drawings=drawings)


def _mask(graph: nx.DiGraph, i: int, path: Any) -> str:
    return _node(graph, f"lt_{i}", ["p"], "b8[8]", path)


def _node(graph: nx.DiGraph, name: str, uses: list[str], kind_of: str, path: Any = (), kind: str = "op") -> str:
    call = f"aten.{name}({', '.join(f'{{{use}}}' for use in uses)})"
    said = {"call": call, "op": "aten.op", "type": kind_of, "source": "m.py:3", "code": "x = f(x)"}
    graph.add_node(name, kind=kind, label=name, module=path, equal=False, part="", **said)
    graph.add_edges_from((use, name) for use in uses)
    return name
