"""The nodes by which a position reaches a slice, and those that have taken their place.

    before      used[0] -> add -> slice -> ... -> scaled_dot_product_attention
    after       used -> select -> add -> lt -> unsqueeze -> scaled_dot_product_attention          (a mask)
                          select -> add -> index_copy_                                            (a write)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import networkx as nx

from .slots import Slot


class Paths:
    """The paths of a report's flow, for each site, which goes by the name of its node before the rewrite.

    slots: those of the two graphs; flow: `Report.flow`.
    """

    def __init__(self, before: nx.DiGraph, after: nx.DiGraph, slots: Sequence[Slot], flow: nx.DiGraph) -> None:
        self._before, self._after, self._flow = before, after, flow
        self._order = {name: i for i, name in enumerate(before)}
        self._sites = {data["node"]: name for name, data in flow.nodes(data=True) if data["kind"] == "site"}
        origins = [data["node"] for _, data in flow.nodes(data=True) if data["kind"] == "position" and data["node"] in before]
        self._positions = set(origins).union(*(nx.descendants(before, origin) for origin in origins))
        self._added = {slot.after for slot in slots if slot.after is not None and slot.after not in before}
        self._beside = {slot.before: slot.after for slot in slots if slot.before is not None}
        self._on_line: dict[object, list[str]] = {}
        for name in self._added:
            self._on_line.setdefault(_line(after, name), []).append(name)

    def before(self, site: str) -> set[str]:
        """The nodes between the positions, the site and its consumers, before the rewrite."""
        if site not in self._before:
            return set()
        graph = self._before
        found = _above(graph, [site], lambda name: name in self._positions and is_whole(graph.nodes[name]["type"]))
        for consumer in self._consumers(site):
            after_site = _above(graph, [consumer], lambda name: self._order[name] > self._order[site])
            found |= after_site & nx.descendants(graph.subgraph([site, *after_site]), site)
        return found

    def after(self, site: str) -> set[str]:
        """The nodes that make what stands there now, or the mask that its consumers are given, after the rewrite."""
        if site not in self._before:
            return set()
        made = [self._beside[name] for name in (site, *self._consumers(site))]
        ends = [name for name in (*made, *self._on_line.get(_line(self._before, site), [])) if name is not None]
        return _above(self._after, ends, lambda name: name in self._added or self._is_position(name))

    def _consumers(self, site: str) -> list[str]:
        names = self._flow.successors(self._sites[site]) if site in self._sites else ()
        return [node for name in names if (node := self._flow.nodes[name]["node"]) in self._before]

    def _is_position(self, name: str) -> bool:
        """Whether it is an input that is a number, or holds whole numbers."""
        node = self._after.nodes[name]
        return node["kind"] == "input" and is_whole(node["type"])


def _above(graph: nx.DiGraph, ends: Iterable[str], goes_on: Callable[[str], bool]) -> set[str]:
    """``ends``, and what they are made of as far as it ``goes_on``."""
    found, waiting = set(ends), list(ends)
    while waiting:
        new = {used for used in graph.predecessors(waiting.pop()) if used not in found and goes_on(used)}
        found |= new
        waiting += new
    return found


def _line(graph: nx.DiGraph, name: str) -> tuple[str, object]:
    node = graph.nodes[name]
    return node["source"], node["module"]


def is_whole(kind: str) -> bool:
    """Whether a type, as it is written, is that of whole numbers: ``i64[2]``, ``s0 + 1``."""
    return bool(re.match(r"[iu]\d+\[", kind)) or "[" not in kind


def roles(before: nx.DiGraph, after: nx.DiGraph, names: Iterable[str]) -> dict[str, str]:
    """What the nodes on paths are, as far as their types show it: "mask" or "position"."""
    found = {}
    for name in names:
        kind = (before if name in before else after).nodes[name]["type"]
        if kind.startswith("b8["):
            found[name] = "mask"
        elif is_whole(kind):
            found[name] = "position"
    return found
