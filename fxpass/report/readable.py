"""Graphs as code that reads well: one line an op, shapes on the left, the user's line above.

# attention.py:123  k, v = cache[layer]
slice_14: f32[3, 4, s0 + 1, 8] = aten.slice(select_6, 2, 0, add_9)
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import networkx as nx

from fxpass.analysis.kinds import Symbol


def readable_code(graph: nx.DiGraph, symbols: Sequence[Symbol] = ()) -> str:
    """The code of ``graph`` (see `drawing`): inputs are called what the user calls them, ``symbols`` what they are, and equal
    masks stand once."""
    return renamed("\n".join(_lines(graph)), symbols)


def renamed(text: str, symbols: Sequence[Symbol]) -> str:
    """``text`` with ``pos``, ``len`` and ``size`` for symbols of positions, growths and variants; the second is ``pos2``."""
    kinds = {"position": "pos", "growth": "len", "variant": "size"}
    seen: collections.Counter[str] = collections.Counter()
    for called, kind in {called: symbol.kind for symbol in symbols for called in symbol.symbol.split(", ")}.items():
        name = kinds[kind]
        seen[name] += 1
        own = name if seen[name] == 1 else f"{name}{seen[name]}"
        text = re.sub(rf"\b{re.escape(called)}\b", own, text)
    return text


def _lines(graph: nx.DiGraph) -> Iterator[str]:
    names: dict[str, str] = {}
    shown: dict[str, str] = {}
    last = ""
    for name, node in graph.nodes(data=True):
        names[name] = node["label"]
        expression = node["call"].format_map(names)
        if node["kind"] == "output":
            yield expression
            continue
        code = f"{node['type']} = {expression}"
        if node["equal"]:
            names[name] = shown.setdefault(code, name)
            if names[name] != name:
                continue
        where = _comment(node)
        if where and where != last:
            yield where
        last = where or last
        yield f"{node['label']}: {code}"


def _comment(node: Mapping[str, Any]) -> str:
    return f"# {os.path.basename(node['source'])}  {node['code']}" if node["source"] and node["kind"] == "op" else ""
