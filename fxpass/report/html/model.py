"""The data of a report that the page is given. It is plain data, in which a slot is a number.

    slots     [{"group": 3, "status": "changed", "role": "slice", "before": node, "after": node}, ...]
    node      {"name": "add_4", "kind": "op", "op": "aten.add", "type": "i32[]", "call": "aten.add(x)", "line": 7, "uses": [2]}
    groups    [{"parent": 0, "name": "layers.0", "kind": "module", "note": "TransformerLayer"}, ...]
    lines     [["attention.py:58", "q, k, v = self.project_in(x)", "/path/to/attention.py:58"], ...]
    sites     those that differ in their layer alone are one, with several ``places``
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import networkx as nx

from fxpass.reasons import of

from ..memory_sizes import in_words
from ..model import Report
from ..names import shortened, user_name
from ..site import Site
from ..symbols import renamed
from .folds import Group, Label, SlotPlace, in_groups
from .paths import Paths, roles
from .slots import Slot, slots

SIDES = ("both", "before", "after")


def page_data(report: Report, reasons: list[str]) -> dict[str, Any]:
    """The data of ``report``; ``reasons`` are all that concern its graph as a whole."""
    return _Page(report).data(reasons)


@dataclasses.dataclass
class _Page:
    report: Report

    def __post_init__(self) -> None:
        self.before, self.after = self.report.graph_before, self.report.graph_after
        self.slots = slots(self.before, self.after)
        self.at = {False: {s.before: i for i, s in enumerate(self.slots)}, True: {s.after: i for i, s in enumerate(self.slots)}}
        self.names = self.report.names
        self.last = ""
        self.lines: dict[tuple[str, str, str], int] = {}

    def data(self, reasons: list[str]) -> dict[str, Any]:
        """The data of the page."""
        old, new = self._nodes(self.before, False), self._nodes(self.after, True)
        paths = Paths(self.before, self.after, self.slots, self.report.flow)
        shown = {site.node: (paths.before(site.node), paths.after(site.node)) for site in self.report.sites if site.node}
        role = roles(self.before, self.after, set().union(*(before | after for before, after in shown.values())))
        role |= dict.fromkeys((site.node for site in self.report.sites if site.buffer), "slice")
        role |= dict.fromkeys(self._buffers(), "buffer")
        drawn = [self._slot(slot, old, new, role) for slot in self.slots]
        groups = self._groups(drawn)
        report = self.report
        return {
            "name": report.name,
            "id": report.compile_id,
            "rewritten": report.rewritten,
            "refused": report.refused,
            "reasons": [user_name(shortened(text)) for text in reasons],
            "parts": [{"name": name, "static": static, "ops": ops} for name, static, ops in report.parts],
            "symbols": [[renamed(s.symbol, self.names), s.kind, user_name(s.of)] for s in report.symbols],
            "ops": [sum(node["kind"] == "op" for node in side.values()) for side in (old, new)],
            "slots": drawn,
            "groups": groups,
            "sites": [self._site(sites, shown) for sites in self.report.alike],
            "lines": list(self.lines),
        }

    def _buffers(self) -> list[str]:
        """The inputs that are sliced."""
        labels = {site.buffer for site in self.report.sites}
        return [name for name, node in self.before.nodes(data=True) if node["kind"] != "op" and node["label"] in labels]

    def _nodes(self, graph: nx.DiGraph, is_after: bool) -> dict[str, dict[str, Any]]:
        labels = {name: node["label"] for name, node in graph.nodes(data=True)}
        at, names = self.at[is_after], self.names
        return {
            name: {
                "name": node["label"],
                "op": node["op"],
                "type": renamed(node["type"], names),
                "call": node["call"].format_map(labels),
                "line": self._line(node["source"], node["code"]),
                "kind": node["kind"],
                "uses": [at[used] for used in graph.predecessors(name)],
            }
            for name, node in graph.nodes(data=True)
        }

    def _line(self, source: str, code: str) -> int:
        """The number of a line of the user's code; -1 where it is not known."""
        return self.lines.setdefault((shortened(source), code, source), len(self.lines)) if source else -1

    def _slot(self, slot: Slot, old: dict[str, Any], new: dict[str, Any], role: dict[str, str]) -> dict[str, Any]:
        before, after = old.get(slot.before or ""), new.get(slot.after or "")
        own = role.get(slot.before or "") or role.get(slot.after or "")
        known = {"role": own} if own else {}
        if before == after:
            return {"status": "same", "both": before, **known}
        status = "changed" if slot.before == slot.after else "replaced"
        status = "added" if before is None else "removed" if after is None else status
        return {"status": status, "before": before, "after": after, **known}

    def _groups(self, drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The groups, each after the one that it is in; notes in the slots ``drawn`` the group of each."""
        nodes = [slot.get("both") or slot["after"] or slot["before"] for slot in drawn]
        places = {i: self._place(i, drawn[i]) for i, node in enumerate(nodes) if node["kind"] == "op"}
        edges = {(use, i) for i, slot in enumerate(drawn) for key in SIDES for use in (slot.get(key) or {"uses": []})["uses"]}
        found: list[dict[str, Any]] = []

        def add(items: list[int | Group], parent: int) -> None:
            for item in items:
                if isinstance(item, int):
                    drawn[item]["group"] = parent
                    continue
                found.append({"parent": parent, "name": item.label.name, "kind": item.label.kind, "note": item.label.note})
                add(item.inside, len(found) - 1)

        add(in_groups(places, edges), -1)
        return found

    def _place(self, i: int, drawn: dict[str, Any]) -> SlotPlace:
        slot = self.slots[i]
        graph, name = (self.before, slot.before) if slot.after is None else (self.after, slot.after)
        modules = tuple(Label(path, "module", kind) for path, kind in graph.nodes[name]["module"])
        signature = [drawn["status"], *(f"{node['op']} {node['type']}" for node in drawn.values() if isinstance(node, dict))]
        return SlotPlace((*self._part(i), *modules), " ".join(signature))

    def _part(self, i: int) -> Iterator[Label]:
        """The part of a slot; what was removed is shown in that of the next node that was not."""
        parts = {name: "static" if static else "dynamic" for name, static, _ in self.report.parts}
        later = (slot.after for slot in itertools.islice(self.slots, i, None) if slot.after is not None)
        part = next((part for name in later if (part := self.after.nodes[name]["part"])), self.last)
        self.last = part
        if part in parts:
            yield Label(part, "part", parts[part])

    def _site(self, sites: list[Site], shown: dict[str, tuple[set[str], set[str]]]) -> dict[str, Any]:
        first, names = sites[0], self.names
        links = [" ".join(link.split(" (")[:1]) for link in first.chain] or [first.position]
        cost, why, reads = first.cost, of(first.reason), ""
        if cost and cost.now != cost.before:
            reads = f"{in_words(cost.now)} a step, {in_words(cost.before)} as written; mask {in_words(cost.mask)}"
        return {
            "kind": first.kind,
            "buffer": first.buffer,
            "size": renamed(first.size, names),
            "dim": first.dim,
            "decision": first.decision,
            "reason": shortened(first.reason),
            "advice": why.advice if why else "",
            "line": self._line(first.source, first.code),
            "chain": [renamed(link, names) for link in links],
            "reads": reads,
            "places": [self._shown(site, shown) for site in sites if site.node in shown and site.node in self.at[False]],
        }

    def _shown(self, site: Site, shown: dict[str, tuple[set[str], set[str]]]) -> dict[str, Any]:
        before, after = shown[site.node]
        return {
            "buffer": site.buffer,
            "slot": self.at[False].get(site.node, -1),
            "before": sorted(self.at[False][name] for name in before),
            "after": sorted(self.at[True][name] for name in after),
        }
