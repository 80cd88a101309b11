"""From the rewrite's decisions on nodes to the report's sites."""

from __future__ import annotations

from collections.abc import Callable

from torch import fx

from fxpass.index_tensors.table import Table
from fxpass.rewriting import Rewritten

from .model import Site
from .readable import source_of


def sites_of(rewritten: Rewritten, name_of: Callable[[fx.Node], str]) -> list[Site]:
    """The sites of a rewritten graph."""
    return [
        Site(
            kind=d.kind,
            buffer="" if d.buffer is None else name_of(d.buffer),
            dim=d.dim,
            position=d.position,
            source=source_of(d.node),
            decision="rewritten" if d.rewritten else "refused",
            reason=d.reason,
        )
        for d in rewritten.decisions
    ]


def predicate_sites(gm: fx.GraphModule) -> list[Site]:
    """The branches and assertions on positions that capture turned into guards."""
    return [
        Site("predicate", "", None, position, source, "rewritten") for position, source in Table.of(gm.graph).predicates
    ]
