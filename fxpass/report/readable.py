"""Graphs as readable code: a line for each op, with its shape on the left and the user's line above it.

# attention.py:123  k, v = cache[layer]
slice_14: f32[3, 4, s0 + 1, 8] = aten.slice(select_6, 2, 0, add_9)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx

from .symbols import renamed


def readable_code(graph: nx.DiGraph, symbols: Mapping[str, str]) -> str:
    """The code of ``graph`` (see `drawing`): inputs are called what the user calls them, symbols as ``symbols`` says, and equal
    masks stand once."""
    return "\n".join(_lines(graph, symbols))


def _lines(graph: nx.DiGraph, symbols: Mapping[str, str]) -> Iterator[str]:
    names: dict[str, str] = {}
    shown: dict[str, str] = {}
    last = ""
    for name, node in graph.nodes(data=True):
        names[name] = node["label"]
        expression = node["call"].format_map(names)
        if node["kind"] == "output":
            yield expression
            continue
        code = f"{renamed(node['type'], symbols)} = {expression}"
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
