"""Which sites of a graph can be rewritten, and what that asks of the nodes behind them. The graph stays as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from torch import fx

from fxpass.analysis.extents import Extent, Extents, Flow
from fxpass.analysis.follow import Stuck, follow
from fxpass.analysis.kinds import Seen
from fxpass.analysis.positions import Origin, Positions
from fxpass.analysis.sites import SiteFinder, SliceSite, is_slice
from fxpass.graph.numbers import guarded, number, supposing, to_expr

from .decisions import reason
from .reads import smallest, start_extent


def decide(
    graph: fx.Graph,
    origins: Mapping[fx.Node, Origin],
    refused: dict[fx.Node, str],
    seen: Seen | None = None,
    leave: Callable[[fx.Node, Extents], bool] = lambda result, extents: False,
) -> tuple[dict[fx.Node, SliceSite], Flow, SiteFinder] | Stuck:
    """The sites of ``graph`` without those ``refused``, what flows from them, and who finds them; or where the flow gets stuck.

    A slice of which nothing sound can be made is added to ``refused``, with the reason.
    """
    positions = Positions(graph, origins)
    finder = SiteFinder(graph, positions, seen)
    sites: dict[fx.Node, SliceSite] = {}
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
            refused[node] = reason(error)
            return None
        for condition in supposed:
            guarded(condition)
        sites[node] = site
        return begun

    outcome = follow(graph, positions, begin, ahead, finder.refuse_copy, leave)
    return outcome if isinstance(outcome, Stuck) else (sites, outcome, finder)


def _ahead(graph: fx.Graph, finder: SiteFinder, refused: Mapping[fx.Node, str]) -> list[Extent]:
    """The extents that the sites of ``graph`` will start, as far as their full size is known from the start."""
    found = []
    for node in graph.nodes:
        if node in refused or not is_slice(node):
            continue
        with contextlib.suppress(Exception):  # it is refused when its turn comes
            site = finder.at(node)
            if site is not None and site.kind == "extent":
                found.append(start_extent(site, graph))
    known = [e for e in found if isinstance(e.full, int) or e.full.args[0].op == "placeholder"]
    first = {(to_expr(number(e.length)), to_expr(e.full_size)): e for e in reversed(known)}  # layers have them in common
    return [smallest(e, first.values()) for e in reversed(first.values())]
