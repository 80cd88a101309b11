"""Which nodes of the graph before and after stand on one place of the picture.

    before            after                   slots
    select            select                  (select, select)
    slice_1                                   (slice_1, None)
    copy_             index_copy_             (copy_, index_copy_)     removed and added on one line of the user's code
                      lt                      (None, lt)
    sdpa              sdpa_1                  (sdpa, sdpa_1)           the same operator

The order of the slots is one that both graphs could be run in.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import networkx as nx


class Slot(NamedTuple):
    """A place of the picture: the names of the nodes that stand there; one of them may be missing."""

    before: str | None
    after: str | None


def slots(before: nx.DiGraph, after: nx.DiGraph) -> list[Slot]:
    """The slots of the two graphs; a name that both have, in the same order, is one node."""
    old, new = list(before), list(after)
    if old == new:
        return [Slot(name, name) for name in old]
    found: list[Slot] = []
    for tag, i, i_end, j, j_end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            found += [Slot(name, name) for name in old[i:i_end]]
        else:
            found += _replaced(before, after, old[i:i_end], new[j:j_end])
    return found


def _replaced(before: nx.DiGraph, after: nx.DiGraph, old: list[str], new: list[str]) -> Iterator[Slot]:
    """``old`` and ``new``, each in its order, in those pairs that are most alike altogether."""
    best = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    alike = [[_alike(before.nodes[a], after.nodes[b]) for b in new] for a in old]
    for i, j in itertools.product(reversed(range(len(old))), reversed(range(len(new)))):
        paired = best[i + 1][j + 1] + alike[i][j] if alike[i][j] else 0
        best[i][j] = max(best[i + 1][j], best[i][j + 1], paired)
    i = j = 0
    while i < len(old) and j < len(new):
        if best[i][j] == best[i + 1][j]:
            yield Slot(old[i], None)
            i += 1
        elif best[i][j] == best[i][j + 1]:
            yield Slot(None, new[j])
            j += 1
        else:
            yield Slot(old[i], new[j])
            i, j = i + 1, j + 1
    yield from (Slot(name, None) for name in old[i:])
    yield from (Slot(None, name) for name in new[j:])


def _alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> int:
    """How much a node is like one that has come in its place: of the same line and dtype, 1; of the same operator, too, 3."""
    shared = ("source", "module", "kind")
    if any(old[key] != new[key] for key in shared) or _dtype(old) != _dtype(new):
        return 0
    return 3 if _family(old) == _family(new) else 1


def _dtype(node: Mapping[str, Any]) -> str:
    return str(node["type"]).partition("[")[0] if "[" in node["type"] else ""


def _family(node: Mapping[str, Any]) -> str:
    """The operator without its overload: ``aten.where`` of ``aten.where.self``."""
    return ".".join(node["op"].split(".")[:2])
