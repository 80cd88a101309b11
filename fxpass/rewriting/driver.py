"""The rewrite of one graph from start to end: it is decided which sites can be rewritten, and then a sweep rewrites them.

A site that cannot be rewritten is refused, with a reason, and the analysis starts again without it, until no more sites are
refused. A use that refuses rows does not cost their other uses: it gets copies (`refused_uses`). Only then is the graph edited,
and are the conditions guarded that the rewrite rests on. If the sweep fails, the graph is restored, the sites that it failed
for are refused, and all starts again without them. What is done to help the analysis (an operator is decomposed, an input is
padded) is undone in the same way where it was of no use (`attempts`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Set

import networkx as nx
from torch import fx

from fxpass.analysis.extents import Flow, no_result
from fxpass.analysis.flow import flow_graph
from fxpass.analysis.follow import Stuck
from fxpass.analysis.kinds import Kinds, Seen
from fxpass.analysis.positions import Origin
from fxpass.analysis.sites import SiteFinder, SliceSite
from fxpass.analysis.unsliced import unsliced
from fxpass.graph import aliases
from fxpass.graph.marks import Marks
from fxpass.graph.numbers import guarded, supposing

from .attempts import Attempts
from .buffers.windows import Windows
from .decide import decide
from .decisions import Decision, SweepFailed, decided, left_alone, reason
from .outside.around import Around
from .outside.cuts import Cuts
from .sweep import sweep


@dataclasses.dataclass
class Rewritten:
    """The outcome of `rewrite_graph`.

    decisions: what was decided about each place that uses a position.
    sites: the slices that were rewritten.
    kinds: the kinds of the graph's symbols.
    flow: from positions to consumers (`analysis.flow`).
    marks: what is known of the nodes that were made.
    around: the windows of caches, and the results that are cut.
    """

    decisions: list[Decision]
    sites: list[SliceSite]
    kinds: Kinds
    flow: nx.DiGraph
    marks: Marks
    around: Around = dataclasses.field(default_factory=Around)


def rewrite_graph(
    gm: fx.GraphModule,
    origins: Mapping[fx.Node, Origin],
    name_of: Callable[[fx.Node], str] = str,
    decompose: Callable[[fx.Node], bool] = lambda node: False,
    seen: Seen | None = None,
    before_edits: Callable[[fx.GraphModule, Iterable[SliceSite]], None] = lambda gm, sites: None,
    cuts: Cuts | None = None,
    windows: Windows | None = None,
) -> Rewritten:
    """Rewrite ``gm`` (in normal form) in place.

    Args:
        gm: the graph.
        origins: the placeholders that are positions.
        name_of: names of graph inputs, for the picture of the flow.
        decompose: replaces an operator without a rule by operators that compute it, or returns False.
        seen: what the calls so far say of the symbols.
        before_edits: called with ``gm`` and its sites once these are decided, while nothing has been edited or guarded for
            them. What it raises goes to the caller.
        cuts: the results that are cut outside of the graph. Without it, none leaves at full size.
        windows: those through which caches are read. Without them, all reads are of whole caches.
    """
    state = Attempts(gm, origins, seen, windows)
    leave = no_result if cuts is None else cuts.leave
    while True:
        if cuts is not None:
            cuts.forget()
        with supposing() as supposed:
            plan = decide(gm.graph, state.origins, state.refused, state.seen, leave, windows)
        if isinstance(plan, Stuck):
            if not plan.no_rule or not state.decomposed(plan.node, decompose):
                state.refuse_use(plan)
            continue
        sites, flow, finder = plan
        before_edits(gm, sites.values())
        for condition in supposed if sites else []:
            guarded(condition)
        picture = flow_graph(sites.values(), flow, finder.positions, name_of)
        stay = _staying(gm.graph, sites.keys(), flow, finder, state.refused)
        state.restorable.copy_once()
        try:
            swept, marks = sweep(gm.graph, sites, flow, finder, state.refused)
            break
        except SweepFailed as failed:
            if failed.blamed <= state.refused.keys():
                raise failed.error from None
            state.refuse(failed.blamed, reason(failed.error))
    decisions = stay + swept
    if not any(d.rewritten for d in decisions):
        state.give_up()
    aliases.remove_dead(gm.graph)
    around = Around(windows=windows.close(gm.graph)) if windows is not None else Around()
    around = around if cuts is None else cuts.beside(around)
    gm.recompile()
    return Rewritten(decisions, list(sites.values()), finder.kinds, picture, marks, around)


def _staying(
    graph: fx.Graph, sites: Set[fx.Node], flow: Flow, finder: SiteFinder, refused: Mapping[fx.Node, str]
) -> list[Decision]:
    """What stays as it is: the sites that are ``refused``, and parts of buffers that are taken otherwise than by a slice."""
    others = unsliced(graph, finder, flow, sites | refused.keys())
    stay = [decided(node, None, finder.positions, why) for node, why in refused.items()]
    return stay + [left_alone(one, finder.positions) for one in others]
