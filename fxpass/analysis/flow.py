"""The flow of positions as a networkx graph: positions -> sites -> consumers.

    L['cache']._idx[0]  ->  read L['cache']._keys dim 2 (cache.py:18)  ->  scaled_dot_product_attention (attention.py:40)

Nodes are strings with the attributes ``kind`` ("position", "site" or "consumer"), ``source`` (file:line of the user's code, if
it is known) and ``node`` (what the graph calls it, before the rewrite). A consumer is an op at which the extent of a read ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import networkx as nx
from torch import fx

from fxpass.graph.expression_texts import expression_text
from fxpass.graph.insertion import name_before
from fxpass.graph.source_lines import source_of

from .arithmetic import inputs_of
from .extents import Flow
from .positions import Positions
from .sites import SliceSite


def flow_graph(
    sites: Iterable[SliceSite],
    flow: Flow,
    positions: Positions,
    name_of: Callable[[fx.Node], str],
) -> nx.DiGraph:
    """The flow that `analysis.extents` has found; ``name_of`` names graph inputs."""
    graph = nx.DiGraph()
    labels = {site.node: _label(site, name_of) for site in sites}
    for site in sites:
        graph.add_node(labels[site.node], kind="site", source=source_of(site.node), node=name_before(site.node))
        origins = sorted((name, made.name) for name, made in chain(site.node, positions) if _is_origin(made, positions))
        for origin, made in origins:
            graph.add_node(origin, kind="position", source="", node=made)
            graph.add_edge(origin, labels[site.node])
    for node, extents in flow.extents.items():
        begun = {read for extent in extents.values() for read in extent.reads}
        for user in node.users:
            left = {read for extent in flow.of(user).values() for read in extent.reads}
            for read in (begun - left) & labels.keys():
                consumer = f"{user.name}: {user.target}"
                graph.add_node(consumer, kind="consumer", source=source_of(user), node=user.name)
                graph.add_edge(labels[read], consumer)
    return graph


def _label(site: SliceSite, name_of: Callable[[fx.Node], str]) -> str:
    kind = "write" if site.kind == "write" else "read"
    return f"{site.node.name}: {kind} {name_of(site.buffer)} dim {site.dim}"


def chain(node: fx.Node, positions: Positions) -> list[tuple[str, fx.Node]]:
    """What the positions that ``node`` uses are made of, origins first: for each number the name of its origin, or an
    expression over symbols, and the node that gives it."""
    found: dict[tuple[str, fx.Node], None] = {}
    seen: set[Any] = set()

    def visit(value: Any) -> None:
        position = positions.resolve(value)
        if position in seen or position not in positions:
            return
        seen.add(position)
        for i in inputs_of(position):
            visit(i)
        if position in positions.origins:
            found[positions.origins[position].name, position] = None
        elif isinstance(position, fx.Node):
            found[position.name if _is_origin(position, positions) else expression_text(position), position] = None

    for used in node.all_input_nodes:
        visit(used)
    return sorted(found, key=lambda step: not _is_origin(step[1], positions))


def _is_origin(node: fx.Node, positions: Positions) -> bool:
    return node in positions.origins or not any(i in positions for i in node.all_input_nodes)
