"""One graph, start to end: which sites can be rewritten, and the sweep that rewrites them.

A site that cannot be rewritten is refused with a reason and left as it was; the analysis is then made again without
it, until nothing more is refused. Only then is the graph touched, and are the conditions guarded that the rewrite rests on.
Operators that were taken apart on the way are whole again where that was of no use, and so is the graph where the sweep comes
to an error: the site is refused, and all is done anew without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import networkx as nx
from torch import fx

from fxpass.analysis.flow import flow_graph
from fxpass.analysis.follow import Stuck
from fxpass.analysis.kinds import Kinds, Seen
from fxpass.analysis.positions import Origin
from fxpass.analysis.sites import SliceSite
from fxpass.graph import aliases
from fxpass.graph.marks import Marks
from fxpass.graph.numbers import guarded, supposing

from .decide import decide
from .decisions import Decision, Failed, decided, reason
from .growth import Grown
from .restore import Restorable
from .sweep import sweep


@dataclasses.dataclass
class Rewritten:
    """The outcome: what was decided, the slices that were rewritten, the kinds of the graph's symbols, the flow from
    positions to consumers (`analysis.flow`), what is known of the nodes that were made, and what grows in buffers."""

    decisions: list[Decision]
    sites: list[SliceSite]
    kinds: Kinds
    flow: nx.DiGraph
    marks: Marks
    grown: Grown | None = None


def rewrite_graph(
    gm: fx.GraphModule,
    origins: Mapping[fx.Node, Origin],
    name_of: Callable[[fx.Node], str] = str,
    source_of: Callable[[fx.Node], str] = lambda node: "",
    decompose: Callable[[fx.Node], bool] = lambda node: False,
    seen: Seen | None = None,
) -> Rewritten:
    """Rewrite ``gm`` (in normal form) in place; ``origins`` names the placeholders that are positions.

    ``name_of`` and ``source_of`` only serve the picture of the flow. ``decompose(node)`` replaces an operator that there is
    no rule for by what it is made of, or returns False. ``seen`` is what the calls before say of symbols.
    """
    refused: dict[fx.Node, str] = {}
    restorable = Restorable(gm)

    def refuse(nodes: Iterable[fx.Node], why: str) -> None:
        """Leave ``nodes`` as they are, from a graph in which nothing has been done for them."""
        nonlocal origins, refused
        refused.update(dict.fromkeys(nodes, why))
        if now := restorable.undo():
            origins = {now[node]: origin.moved(now) for node, origin in origins.items()}
            refused = {now.get(node, node): text for node, text in refused.items()}

    while True:
        with supposing() as supposed:
            plan = decide(gm.graph, origins, refused, seen)
        if isinstance(plan, Stuck):
            if plan.no_rule and _decomposed(plan.node, decompose, restorable):
                continue
            refuse(plan.reads, f"{plan.reason} (at {plan.node.name})")
            continue
        sites, flow, finder = plan
        for condition in supposed if sites else []:
            guarded(condition)
        picture = flow_graph(sites.values(), flow, finder.positions, name_of, source_of)
        left = [decided(node, None, finder.positions, why) for node, why in refused.items()]
        restorable.copy_once()
        try:
            swept, marks = sweep(gm.graph, sites, flow, finder, refused)
        except Failed as failed:
            if failed.blamed <= refused.keys():
                raise failed.error from None
            refuse(failed.blamed, reason(failed.error))
            continue
        break
    decisions = left + swept
    if not any(d.rewritten for d in decisions):
        restorable.undo()
    aliases.remove_dead(gm.graph)
    gm.recompile()
    return Rewritten(decisions, list(sites.values()), finder.kinds, picture, marks)


def _decomposed(node: fx.Node, decompose: Callable[[fx.Node], bool], restorable: Restorable) -> bool:
    restorable.copy_once()
    try:
        return decompose(node)
    except Exception as error:
        reason(error)
        return False
