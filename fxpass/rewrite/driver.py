"""One graph, start to end: which sites can be rewritten, and the sweep that rewrites them.

A site that cannot be rewritten is refused with a reason and left as it was; the analysis is then made again without
it, until nothing more is refused. Only then is the graph touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Literal

import networkx as nx
from torch import fx

from fxpass.analysis.extents import Extent, Extents, Fill, Flow, Stuck, follow
from fxpass.analysis.flow import flow_graph
from fxpass.analysis.positions import Origin, Positions
from fxpass.analysis.sites import Site, Sites, is_slice
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.numbers import expression, number, plain

from .assertions import asserts_position, rewrite_assertion
from .builder import Builder
from .narrows import rewrite_narrow
from .reads import rewrite_read, smallest, start_extent
from .scalars import rewrite_scalar, uses_position
from .twins import Twins
from .writes import rewrite_gather, rewrite_write


@dataclasses.dataclass
class Decision:
    """What was decided about one place that uses a position."""

    kind: Literal["read", "write", "scalar", "predicate"]
    node: fx.Node
    buffer: fx.Node | None
    dim: int | None
    position: str
    rewritten: bool
    reason: str = ""


@dataclasses.dataclass
class Rewritten:
    """The outcome: what was decided, the slices that were rewritten, the symbols that are capacities of caches, and the
    flow from positions to consumers (`analysis.flow`)."""

    decisions: list[Decision]
    sites: list[Site]
    capacity: set[Any]
    flow: nx.DiGraph


def rewrite_graph(
    gm: fx.GraphModule,
    origins: Mapping[fx.Node, Origin],
    name_of: Callable[[fx.Node], str] = str,
    source_of: Callable[[fx.Node], str] = lambda node: "",
    take_apart: Callable[[fx.Node], bool] = lambda node: False,
) -> Rewritten:
    """Rewrite ``gm`` (in normal form) in place; ``origins`` names the placeholders that are positions.

    ``name_of`` and ``source_of`` only serve the picture of the flow. ``take_apart(node)`` replaces an operator that there is
    no rule for by what it is made of, or returns False.
    """
    refused: dict[fx.Node, str] = {}
    while True:
        plan = _plan(gm.graph, origins, refused)
        if isinstance(plan, Stuck) and plan.no_rule and take_apart(plan.node):
            continue
        if isinstance(plan, Stuck):
            where = f"{plan.reason} (at {plan.node.name})"
            refused.update(dict.fromkeys(plan.sites, where))
            continue
        sites, flow, finder = plan
        break
    decisions = [_decision(node, None, finder.positions, reason) for node, reason in refused.items()]
    picture = flow_graph(sites.values(), flow, finder.positions, name_of, source_of)
    decisions += _sweep(gm.graph, sites, flow, finder)
    aliases.remove_dead(gm.graph)
    gm.recompile()
    return Rewritten(decisions, list(sites.values()), finder.capacity, picture)


def _plan(
    graph: fx.Graph, origins: Mapping[fx.Node, Origin], refused: dict[fx.Node, str]
) -> tuple[dict[fx.Node, Site], Flow, Sites] | Stuck:
    positions = Positions(graph, origins)
    finder = Sites(graph, positions)
    sites: dict[fx.Node, Site] = {}

    def begin(node: fx.Node, flow: Flow) -> Extents | None:
        if node in refused:
            return None
        try:
            site = finder.at(node)
        except Refusal as refusal:
            refused[node] = str(refusal)
            return None
        if site is None or (site.kind == "narrow" and flow.of(site.base)):
            return None  # no site, or a slice of what a site gives: a rule's matter
        sites[node] = site
        return {site.dim: smallest(start_extent(site, graph, positions), ahead)} if site.kind == "extent" else None

    ahead = _ahead(graph, origins, refused)
    outcome = follow(graph, positions, begin, ahead, finder.refuse_copy)
    return outcome if isinstance(outcome, Stuck) else (sites, outcome, finder)


def _ahead(graph: fx.Graph, origins: Mapping[fx.Node, Origin], refused: Mapping[fx.Node, str]) -> list[Extent]:
    """The extents that the sites of ``graph`` will start, as far as their full size is known from the start."""
    positions = Positions(graph, origins)
    finder = Sites(graph, positions)
    found = []
    for node in list(graph.nodes):
        with contextlib.suppress(Refusal):  # it is refused when its turn comes
            site = None if node in refused else finder.at(node)
            if site is not None and site.kind == "extent":
                found.append(start_extent(site, graph, positions))
    known = [e for e in found if isinstance(e.full_size, int) or e.full.op == "placeholder"]
    first = {(plain(number(e.length)), plain(e.full_size)): e for e in reversed(known)}  # layers have them in common
    return [smallest(e, first.values()) for e in reversed(first.values())]


def _sweep(graph: fx.Graph, sites: dict[fx.Node, Site], flow: Flow, finder: Sites) -> list[Decision]:
    positions = finder.positions
    b = Builder(graph, Twins(graph, positions))
    builds = dict(flow.replacements)
    fills: defaultdict[fx.Node, list[Fill]] = defaultdict(list)
    for fill in flow.fills:
        fills[fill.user].append(fill)
    decisions = []
    for node in list(graph.nodes):
        site = sites.get(node)
        if site is not None:
            if site.kind == "extent":
                rewrite_read(site, flow.extents[node][site.dim], b)
            else:
                {"write": rewrite_write, "gather": rewrite_gather, "narrow": rewrite_narrow}[site.kind](site, b)
            decisions.append(_decision(node, site, positions))
            continue
        for fill in fills[node]:
            b.at(node).fill(fill)
        if node in builds:
            b.replace(node, builds[node](b.at(node)))
            b.drop(node)
            continue
        for operand, filled in b.filled_operands(node).items():
            node.replace_input_with(b.current(operand), filled)
        if asserts_position(node, positions):
            try:
                rewrite_assertion(node, b.at(node))
                decisions.append(_decision(node, None, positions))
            except Refusal as refusal:
                decisions.append(_decision(node, None, positions, str(refusal)))
        if (
            uses_position(node, positions)
            and not b.is_new(node)
            and not is_slice(node)
            and (finder.is_buffer(node) or flow.of(node))
        ):
            try:
                b.replace(node, rewrite_scalar(node, positions, b.at(node)))
                b.drop(node)  # it may write in place: it must not run twice
                decisions.append(_decision(node, None, positions))
            except Refusal as refusal:
                decisions.append(_decision(node, None, positions, str(refusal)))
    for node in b.dropped:
        graph.erase_node(node)
    return decisions


def _decision(node: fx.Node, site: Site | None, positions: Positions, reason: str = "") -> Decision:
    used = [i for i in node.all_input_nodes if i in positions]
    position = ", ".join(dict.fromkeys(expression(i) for i in used))
    if not is_slice(node):
        kind: Literal["scalar", "predicate"] = "predicate" if asserts_position(node, positions) else "scalar"
        return Decision(kind, node, None, None, position, not reason, reason)
    writes = any(node in aliases.written(u) for u in node.users) if site is None else bool(site.writers)
    base, dim = node.args[0], node.args[1]
    assert isinstance(base, fx.Node) and isinstance(dim, int)
    buffer = site.buffer if site is not None else aliases.root(base)
    return Decision("write" if writes else "read", node, buffer, dim, position, not reason, reason)
