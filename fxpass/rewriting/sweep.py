"""The sweep makes all edits in program order: sites, sizes of slices, filled operands, replacements, positions as arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from torch import fx

from fxpass.analysis.extents import Cut, Fill, Flow
from fxpass.analysis.sites import SiteFinder, SliceSite, is_slice
from fxpass.errors import Refusal
from fxpass.graph.marks import Marks

from .decisions import Decision, SweepFailed, decided
from .edits.assertions import asserts_position, rewrite_assertion
from .edits.narrows import rewrite_narrow
from .edits.reads import rewrite_read
from .edits.scalars import made_by, rewrite_scalar, uses_position
from .edits.writes import rewrite_gather, rewrite_write
from .nodes.builder import Builder
from .nodes.twins import Twins


def sweep(
    graph: fx.Graph, sites: dict[fx.Node, SliceSite], flow: Flow, finder: SiteFinder, refused: Mapping[fx.Node, str]
) -> tuple[list[Decision], Marks]:
    """Make the edits that ``sites`` and ``flow`` ask for. Gives the decision about each place, and the marks on new nodes.

    Raises:
        SweepFailed: an edit could not be made; the graph is then half edited.
    """
    b = Builder(graph, Twins(graph, finder.positions), finder.kinds)
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
                taken = flow.extents[node][site.dim].full_size if site.kind == "extent" and flow.of(node) else None
                decisions.append(decided(node, site, finder.positions, taken=taken))
                continue
            size = finder.positions.resolve(node)
            if size is not node:  # the size of a slice: the slice is the full buffer from here on
                b.replace(node, b.at(node).number(size))
                continue
            for fill in fills[node]:
                b.at(node).fill(fill)
            if replacement is not None:
                b.replace(node, replacement(b.at(node)))
                b.drop(node)
                continue
            if b.is_filled(node):
                node.args, node.kwargs = b.arguments(node)
        except Exception as error:
            extents = [flow.of(i) for i in (node, *node.all_input_nodes)]
            blamed = {read for of in extents for e in of.values() for read in e.reads} | ({node} if site else set())
            raise SweepFailed(error, blamed) from error
        if node not in refused and (decision := _rewrite_number(node, flow, finder, b)) is not None:
            decisions.append(decision)
    for node in b.dropped:
        if not flow.of(node):
            node.replace_all_uses_with(b.current(node))  # by a size that has been read off it since
        graph.erase_node(node)
    return decisions, b.marks


def _rewrite_site(site: SliceSite, flow: Flow, b: Builder) -> None:
    if site.kind == "extent":
        rewrite_read(site, flow.extents[site.node][site.dim], b)
    else:
        {"write": rewrite_write, "gather": rewrite_gather, "narrow": rewrite_narrow}[site.kind](site, b)


def _rewrite_number(node: fx.Node, flow: Flow, finder: SiteFinder, b: Builder) -> Decision | None:
    """Rewrite ``node`` if it asserts a position or is a tensor op that takes one; None if it is neither."""
    positions = finder.positions
    try:
        if asserts_position(node, positions):
            rewrite_assertion(node, b.at(node))
        elif (
            uses_position(node, positions)
            and not b.is_new(node)
            and not is_slice(node)
            and (flow.of(node) or all(finder.kinds.are_steady(t.shape) for t in made_by(node)))
        ):
            b.replace(node, rewrite_scalar(node, positions, b.at(node)))
            b.drop(node)  # it may write in place: it must not run twice
        else:
            return None
    except Refusal as refusal:
        return decided(node, None, positions, str(refusal))
    except Exception as error:
        raise SweepFailed(error, {node}) from error
    return decided(node, None, positions)
