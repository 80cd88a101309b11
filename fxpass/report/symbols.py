"""Names for symbols in the code of a graph. They tell the kind of a symbol, as ``s61`` does not.

    position    pos                    growth      len          capacity    capacity
    variant     size, size2            layout      stride       of the memory that an input lies in
    window      window                 of how many rows of a cache are read

Names are numbered in the order of the inputs, so that they are the same in every run and process.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass.analysis.kinds import Kinds, Symbol
from fxpass.graph.numbers import symbols

from .names import user_name

_CALLED = {"position": "pos", "growth": "len", "variant": "size", "capacity": "capacity", "layout": "stride",
           "window": "window"}  # fmt: skip


def kinds_of(
    graph: fx.Graph,
    kinds: Kinds,
    lengths: Set[Any] = frozenset(),
    capacities: Set[Any] = frozenset(),
    windows: Set[Any] = frozenset(),
) -> dict[str, str]:
    """The kind of each symbol that there is in ``graph``, the inputs' first. ``lengths`` are those of what has buffers,
    ``capacities`` the sizes of these buffers and of caches that are sliced, ``windows`` those of windows."""
    own = dict.fromkeys(kinds.layouts, "layout") | dict.fromkeys(lengths, "growth") | dict.fromkeys(capacities, "capacity")
    own |= dict.fromkeys(windows, "window")
    found: dict[Any, None] = {}
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        numbers = (*value.shape, *value.stride(), value.storage_offset()) if isinstance(value, torch.Tensor) else (value,)
        for number in numbers:
            found |= dict.fromkeys(sorted(symbols(number), key=str))
    others = sorted(kinds.symbols - found.keys(), key=str)
    return {str(symbol): own.get(symbol) or kinds.of_symbol(symbol) for symbol in (*found, *others)}


def called(kinds: Mapping[str, str]) -> dict[str, str]:
    """The names of symbols of these ``kinds``: the second of a kind is ``pos2``."""
    seen: collections.Counter[str] = collections.Counter()
    names = {}
    for symbol, kind in kinds.items():
        seen[kind] += 1
        names[symbol] = _CALLED[kind] + (str(seen[kind]) if seen[kind] > 1 else "")
    return names


def sources(symbols: Sequence[Symbol]) -> dict[str, str]:
    """The user's name, such as ``used[0]``, for each symbol that stands for one of the caller's numbers."""
    return {symbol.symbol: user_name(symbol.of) for symbol in reversed(symbols)}


def renamed(text: str, names: Mapping[str, str]) -> str:
    """``text`` with ``names`` for symbols."""
    return re.sub(r"\b[a-z]+\d+\b", lambda found: names.get(found[0], found[0]), text)
