"""Which sites of a graph can be rewritten, and what has to be done to the nodes that follow them. The graph is not edited."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import fx

from fxpass.analysis.extents import Extent, Extents, Flow, Leave, WrittenSlice, no_result
from fxpass.analysis.follow import Stuck, follow
from fxpass.analysis.kinds import Seen
from fxpass.analysis.positions import Origin, Positions
from fxpass.analysis.sites import SiteFinder, SliceSite, is_slice
from fxpass.graph.numbers import equal, guarded, number, supposing, to_expr

from .buffers.windows import Windows
from .decisions import reason
from .edits.reads import on_shortest_axis, start_extent


def decide(
    graph: fx.Graph,
    origins: Mapping[fx.Node, Origin],
    refused: dict[fx.Node, str],
    seen: Seen | None = None,
    leave: Leave = no_result,
    windows: Windows | None = None,
) -> tuple[dict[fx.Node, SliceSite], Flow, SiteFinder] | Stuck:
    """The sites of ``graph`` that are not ``refused``, the flow from them, and their finder; or where the flow got stuck.

    A site that cannot be rewritten soundly is added to ``refused``, with the reason.
    """
    positions = Positions(graph, origins)
    finder = SiteFinder(graph, positions, seen)
    sites: dict[fx.Node, SliceSite] = {}

    def windowed(extent: Extent) -> Extent:
        return extent if windows is None else windows.of(extent, graph)

    ahead = extents_ahead(map(windowed, (extent for _, extent in reads_ahead(graph, finder, refused))))

    def begin(node: fx.Node, flow: Flow) -> Extents | None:
        if node in refused or not is_slice(node):
            return None
        try:
            with supposing() as supposed:
                site = finder.at(node, flow.of(node.args[0]).keys())
                if site is None or (site.kind == "narrow" and flow.of(site.base)):
                    return None  # no site, or a slice of what another site gives, which a rule deals with
                begun = _begun(site, graph, flow, ahead, windowed) if site.kind == "extent" else None
        except Exception as error:
            refused[node] = reason(error)
            return None
        for condition in supposed:
            guarded(condition)
        sites[node] = site
        return begun

    outcome = follow(graph, positions, begin, ahead, finder.refuse_copy, leave, finder.kinds.number, refused)
    return outcome if isinstance(outcome, Stuck) else (sites, outcome, finder)


def _begun(
    site: SliceSite, graph: fx.Graph, flow: Flow, ahead: list[Extent], windowed: Callable[[Extent], Extent]
) -> Extents:
    """The extents of the slice at ``site``. A slice that is written to and does not start at 0 is one of `Flow.parts`."""
    extent = start_extent(site, graph)
    if site.writers and not equal(site.start, 0):
        flow.parts[site.node] = WrittenSlice(site.base, site.dim, extent, site.start, extent.length)
        return {site.dim: extent}
    return {site.dim: on_shortest_axis(windowed(extent), ahead)}


def reads_ahead(
    graph: fx.Graph, finder: SiteFinder, refused: Mapping[fx.Node, str]
) -> Iterator[tuple[SliceSite, Extent]]:
    """The sites of ``graph`` that are going to start extents, with these."""
    for node in graph.nodes:
        if node in refused or not is_slice(node):
            continue
        with contextlib.suppress(Exception):  # decide refuses it when it comes to it
            site = finder.at(node)
            if site is not None and site.kind == "extent":
                yield site, start_extent(site, graph)


def extents_ahead(extents: Iterable[Extent]) -> list[Extent]:
    """Those ``extents`` of `reads_ahead` whose full size is known where the graph is entered."""
    known = [e for e in extents if isinstance(e.full, int) or e.full.args[0].op == "placeholder"]
    first = {(to_expr(number(e.length)), to_expr(e.full_size)): e for e in reversed(known)}  # layers share them
    return [on_shortest_axis(e, first.values()) for e in reversed(first.values())]
