"""Slots in groups that open and close: by the part of the graph, by module, and runs of layers that are alike.

    core                        a part
      layers.0                  a module, by the path of the call
        layers.0.attention
      layers.1 to layers.10     10 layers that do the same
        layers.1
      ops 1 to 50               many ops that are in no module

A closed group stands for all its slots, so groups side by side must not wait for each other. A group that would is split into
pieces that follow one another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import networkx as nx

RUN, MANY, CHUNK = 3, 120, 40
"""`RUN` layers that are alike become a run. More than `MANY` ops side by side are cut into groups of `CHUNK`."""


class SlotPlace(NamedTuple):
    """A slot's place: the labels of the groups that it is in, the outermost first, and a signature that equal slots of equal
    layers share."""

    path: tuple[Label, ...]
    signature: str


class Label(NamedTuple):
    """A group's name and what there is to say of it. ``kind`` is "part", "module", "run" or "ops"."""

    name: str
    kind: str
    note: str = ""


class Group(NamedTuple):
    """A group and what is in it: the numbers of slots, and groups, in order."""

    label: Label
    inside: list[int | Group]


def in_groups(places: Mapping[int, SlotPlace], edges: Iterable[tuple[int, int]]) -> list[int | Group]:
    """The slots, by number and in order, in groups. ``edges`` lead from slots to later ones."""
    graph = nx.DiGraph()
    graph.add_nodes_from(places)
    graph.add_edges_from((a, b) for a, b in edges if a in places and b in places)
    return _level(list(places), 0, places, graph)


def slots_in(item: int | Group) -> list[int]:
    """All slots of a group."""
    return [item] if isinstance(item, int) else [slot for inner in item.inside for slot in slots_in(inner)]


def _level(slots: list[int], depth: int, places: Mapping[int, SlotPlace], graph: nx.DiGraph) -> list[int | Group]:
    """``slots``, which share the first ``depth`` labels, in groups by the next one."""

    def label(slot: int) -> Label | None:
        path = places[slot].path
        return path[depth] if depth < len(path) else None

    items: list[int | Group] = []
    for shared, members in _clusters(slots, label, graph):
        if shared is None:
            items += members
        else:
            items.append(Group(shared, _level(members, depth + 1, places, graph)))
    return _chunks(_runs(items, places))


def _clusters(
    slots: list[int], label: Callable[[int], Label | None], graph: nx.DiGraph
) -> list[tuple[Label | None, list[int]]]:
    """``slots`` by label, in the order in which labels come up. Groups that would wait for each other are split into
    stretches."""
    home: dict[int, object] = {slot: label(slot) or slot for slot in slots}
    waits = nx.DiGraph((home[a], home[b]) for a, b in graph.subgraph(slots).edges if home[a] != home[b])
    tangled = set().union(*(part for part in nx.strongly_connected_components(waits) if len(part) > 1))
    for piece, (_, stretch) in enumerate(itertools.groupby(slots, key=label)):
        home |= {slot: (home[slot], piece) for slot in stretch if home[slot] in tangled}
    found: dict[object, list[int]] = {}
    for slot in slots:
        found.setdefault(home[slot], []).append(slot)
    return [(label(members[0]), members) for members in found.values()]


def _runs(items: list[int | Group], places: Mapping[int, SlotPlace]) -> list[int | Group]:
    """``items``, where layers that follow one another and do the same are one group."""
    found: list[int | Group] = []
    for _, run in itertools.groupby(items, key=lambda item: _signature(item, places)):
        alike = list(run)
        first, last = alike[0], alike[-1]
        if len(alike) >= RUN and isinstance(first, Group) and isinstance(last, Group) and first.label.kind == "module":
            name = f"{first.label.name} to {last.label.name}"
            alike = [Group(Label(name, "run", f"{len(alike)} that are alike"), alike)]
        found += alike
    return found


def _signature(item: int | Group, places: Mapping[int, SlotPlace]) -> object:
    return item if isinstance(item, int) else tuple(places[slot].signature for slot in slots_in(item))


def _chunks(items: list[int | Group]) -> list[int | Group]:
    """``items``, where a long stretch of ops that are in no group is cut into groups of its own."""
    found: list[int | Group] = []
    for is_op, stretch in itertools.groupby(items, key=lambda item: isinstance(item, int)):
        ops = list(stretch)
        if not is_op or len(ops) <= MANY:
            found += ops
            continue
        for begin in range(0, len(ops), CHUNK):
            chunk = ops[begin : begin + CHUNK]
            found.append(Group(Label(f"ops {begin + 1} to {begin + len(chunk)}", "ops"), chunk))
    return found
