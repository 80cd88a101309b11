"""One graph, start to end: which sites can be rewritten, and the sweep that rewrites them.

A site that cannot be rewritten is refused with a reason and left as it was; the analysis is then made again without
it, until nothing more is refused. Only then is the graph touched, and are the conditions guarded that the rewrite rests on.
Operators that were taken apart on the way are whole again where that was of no use, and so is the graph where the sweep comes
to an error: the site is refused, and all is done anew without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import networkx as nx
from torch import fx

from fxpass.analysis.extents import Cut, Extent, Extents, Fill, Flow, Stuck, follow
from fxpass.analysis.flow import flow_graph
from fxpass.analysis.positions import Origin, Positions
from fxpass.analysis.sites import Site, Sites, is_slice
from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.numbers import expression, guarded, number, plain, supposing

from .assertions import asserts_position, rewrite_assertion
from .builder import Builder
from .narrows import rewrite_narrow
from .reads import rewrite_read, smallest, start_extent
from .restore import Restorable
from .scalars import rewrite_scalar, uses_position
from .twins import Twins
from .writes import rewrite_gather, rewrite_write

logger = logging.getLogger(__name__)


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
    restorable = Restorable(gm)

    def refuse(nodes: Iterable[fx.Node], reason: str) -> None:
        """Leave ``nodes`` as they are, from a graph in which nothing has been done for them."""
        nonlocal origins, refused
        refused.update(dict.fromkeys(nodes, reason))
        if now := restorable.go_back():
            origins = {now[node]: origin.moved(now) for node, origin in origins.items()}
            refused = {now.get(node, node): why for node, why in refused.items()}

    while True:
        with supposing() as supposed:
            plan = _plan(gm.graph, origins, refused)
        if isinstance(plan, Stuck):
            if plan.no_rule and _took_apart(plan.node, take_apart, restorable):
                continue
            refuse(plan.sites, f"{plan.reason} (at {plan.node.name})")
            continue
        sites, flow, finder = plan
        for condition in supposed if sites else []:
            guarded(condition)
        picture = flow_graph(sites.values(), flow, finder.positions, name_of, source_of)
        left = [_decision(node, None, finder.positions, reason) for node, reason in refused.items()]
        restorable.keep()
        try:
            decisions = left + _sweep(gm.graph, sites, flow, finder, refused)
        except _Failed as failed:
            if failed.blamed <= refused.keys():
                raise failed.error from None
            refuse(failed.blamed, _reason(failed.error))
            continue
        break
    if not any(d.rewritten for d in decisions):
        restorable.go_back()
    aliases.remove_dead(gm.graph)
    gm.recompile()
    return Rewritten(decisions, list(sites.values()), finder.capacity, picture)


def _took_apart(node: fx.Node, take_apart: Callable[[fx.Node], bool], restorable: Restorable) -> bool:
    restorable.keep()
    try:
        return take_apart(node)
    except Exception as error:
        _reason(error)
        return False


def _plan(
    graph: fx.Graph, origins: Mapping[fx.Node, Origin], refused: dict[fx.Node, str]
) -> tuple[dict[fx.Node, Site], Flow, Sites] | Stuck:
    positions = Positions(graph, origins)
    finder = Sites(graph, positions)
    sites: dict[fx.Node, Site] = {}
    ahead = _ahead(graph, finder, refused)

    def begin(node: fx.Node, flow: Flow) -> Extents | None:
        if node in refused or not is_slice(node):
            return None
        try:
            with supposing() as supposed:
                site = finder.at(node)
                if site is None or (site.kind == "narrow" and flow.of(site.base)):
                    return None  # no site, or a slice of what a site gives: a rule's matter
                is_read = site.kind == "extent"
                begun = {site.dim: smallest(start_extent(site, graph), ahead)} if is_read else None
        except Exception as error:
            refused[node] = _reason(error)
            return None
        for condition in supposed:
            guarded(condition)
        sites[node] = site
        return begun

    outcome = follow(graph, positions, begin, ahead, finder.refuse_copy)
    return outcome if isinstance(outcome, Stuck) else (sites, outcome, finder)


def _ahead(graph: fx.Graph, finder: Sites, refused: Mapping[fx.Node, str]) -> list[Extent]:
    """The extents that the sites of ``graph`` will start, as far as their full size is known from the start."""
    found = []
    for node in graph.nodes:
        if node in refused or not is_slice(node):
            continue
        with contextlib.suppress(Exception):  # it is refused when its turn comes
            site = finder.at(node)
            if site is not None and site.kind == "extent":
                found.append(start_extent(site, graph))
    known = [e for e in found if isinstance(e.full_size, int) or e.full.op == "placeholder"]
    first = {(plain(number(e.length)), plain(e.full_size)): e for e in reversed(known)}  # layers have them in common
    return [smallest(e, first.values()) for e in reversed(first.values())]


def _reason(error: Exception) -> str:
    """What the report says of a site at which ``error`` came up; one that is no refusal is a fault of ours."""
    if isinstance(error, Refusal):
        return str(error)
    logger.warning("kvfix: a site is left as it is, after an unexpected error", exc_info=error)
    return f"the pass failed here: {type(error).__name__}: {error}"


class _Failed(Exception):
    """The sweep came to an ``error``; ``blamed`` are the sites, or the one node, that it would not have without."""

    def __init__(self, error: Exception, blamed: set[fx.Node]) -> None:
        super().__init__(str(error))
        self.error, self.blamed = error, blamed


def _sweep(
    graph: fx.Graph, sites: dict[fx.Node, Site], flow: Flow, finder: Sites, refused: Mapping[fx.Node, str]
) -> list[Decision]:
    b = Builder(graph, Twins(graph, finder.positions))
    builds = dict(flow.replacements)
    fills: defaultdict[fx.Node, list[Fill | Cut]] = defaultdict(list)
    for fill in flow.fills:
        fills[fill.user].append(fill)
    decisions = []
    for node in list(graph.nodes):
        site, replacement = sites.get(node), builds.get(node)
        try:
            if site is not None:
                _rewrite_site(site, flow, b)
                decisions.append(_decision(node, site, finder.positions))
                continue
            size = finder.positions.resolve(node)
            if size is not node:  # the size of a slice, which is the full buffer's from here on
                b.replace(node, b.at(node).number(size))
                continue
            for fill in fills[node]:
                b.at(node).fill(fill)
            if replacement is not None:
                b.replace(node, replacement(b.at(node)))
                b.drop(node)
                continue
            for operand, filled in b.filled_operands(node).items():
                node.replace_input_with(b.current(operand), filled)
        except Exception as error:
            extents = [flow.of(i) for i in (node, *node.all_input_nodes)]
            blamed = {read for of in extents for e in of.values() for read in e.sites} | ({node} if site else set())
            raise _Failed(error, blamed) from error
        if node not in refused and (decision := _rewrite_number(node, flow, finder, b)) is not None:
            decisions.append(decision)
    for node in b.dropped:
        graph.erase_node(node)
    return decisions


def _rewrite_site(site: Site, flow: Flow, b: Builder) -> None:
    if site.kind == "extent":
        rewrite_read(site, flow.extents[site.node][site.dim], b)
    else:
        {"write": rewrite_write, "gather": rewrite_gather, "narrow": rewrite_narrow}[site.kind](site, b)


def _rewrite_number(node: fx.Node, flow: Flow, finder: Sites, b: Builder) -> Decision | None:
    """Rewrite a position that is an argument of a tensor op, or asserted; None where ``node`` is neither."""
    positions = finder.positions
    try:
        if asserts_position(node, positions):
            rewrite_assertion(node, b.at(node))
        elif (
            uses_position(node, positions)
            and not b.is_new(node)
            and not is_slice(node)
            and (finder.is_buffer(node) or flow.of(node))
        ):
            b.replace(node, rewrite_scalar(node, positions, b.at(node)))
            b.drop(node)  # it may write in place: it must not run twice
        else:
            return None
    except Refusal as refusal:
        return _decision(node, None, positions, str(refusal))
    except Exception as error:
        raise _Failed(error, {node}) from error
    return _decision(node, None, positions)


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
