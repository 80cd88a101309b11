"""Finds the heavy ops that are left outside of the core, and what keeps them there.

    core        linear, attention
    epilogue    sum(x * weights[:n])   linear                 outside: linear, since n moves

A product or attention over a symbolic size runs in a part of its own, kernel by kernel, and so does what needs its result. The
light ops of such a part are named, too (`beside`).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any

from torch import fx

from fxpass import reasons
from fxpass.analysis.kinds import Symbol
from fxpass.graph import aliases
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.numbers import symbols
from fxpass.graph.source_lines import source_of
from fxpass.graph.values import tensors_of, values_of

from .split import Part

_MOST_LINES = 6
"""So many lines of code are named at most for a part with light ops."""


def outside(
    graphs: Iterable[fx.Graph], bound: Set[Any], table: Sequence[Symbol], is_part: bool = True
) -> list[str]:
    """A line of text for each heavy op of ``graphs`` with symbols that are not ``bound``: the user's line of code, the op, and
    the numbers that these symbols stand for, by their names in the ``table`` of a report.

    In a part of a graph (``is_part``) an op without such a symbol may stand because of the order of writes alone.
    """
    names = {name: f"{symbol.of} ({symbol.kind})" for symbol in table for name in symbol.symbol.split(", ")}
    found: dict[str, None] = {}
    for graph in graphs:
        for node, causes in _causes(graph, bound, is_part):
            if is_heavy(node) and causes:
                why = dict.fromkeys(names.get(text, text) for text in sorted(map(str, causes)))
                found[reasons.OUTSIDE_THE_CORE.text(source=source_of(node), op=node.target, why=", ".join(why))] = None
    return list(found)


def beside(parts: Sequence[Part]) -> list[str]:
    """A line of text for each part that is not static: the user's lines of code, and the light ops of each that make new
    tensors of one dim or more."""
    has_core = any(part.static for part in parts)
    found: list[str] = []
    for part in parts:
        lines: dict[str, dict[str, None]] = {}
        for node in () if part.static else part.gm.graph.nodes:
            if _is_light_work(node):
                lines.setdefault(source_of(node), {})[str(node.target)] = None
        shown = [f"{source}: {', '.join(ops)}" for source, ops in list(lines.items())[:_MOST_LINES]]
        more = [f"and {len(lines) - _MOST_LINES} lines more"] if len(lines) > _MOST_LINES else []
        where = f"in the {part.name}, beside the static core" if has_core else "in a graph without a static core"
        found += [reasons.BESIDE.text(where=where, ops="; ".join([*shown, *more]))] if shown else []
    return found


def _is_light_work(node: fx.Node) -> bool:
    made = [v for v in tensors_of(node) if v.dim()]
    is_op = node.op == "call_function" and node.target is not operator.getitem
    return bool(is_op and made and aliases.base(node) is None and not is_heavy(node))


def works_on(graphs: Iterable[fx.Graph], lengths: Set[Any]) -> str | None:
    """The first heavy op of ``graphs`` whose result is as long as something with a symbol of ``lengths``, and its line."""
    for graph in graphs:
        for node in graph.nodes:
            if is_heavy(node) and any(symbols(size) & lengths for v in values_of(node) for size in getattr(v, "shape", ())):
                return f"{source_of(node)}: {node.target}"
    return None


def _causes(graph: fx.Graph, bound: Set[Any], is_part: bool) -> Iterator[tuple[fx.Node, set[Any]]]:
    """Each op of ``graph`` with its symbols. An op without any gets the symbols of its operands. If these have none either, it
    gets those of all ops, in a part."""
    every = {s for n in graph.nodes for v in values_of(n) for s in symbols(v)} - bound
    found: dict[fx.Node, set[Any]] = {}
    for node in graph.nodes:
        operands = node.all_input_nodes
        own = {s for n in (node, *operands) for v in values_of(n) for s in symbols(v)} - bound
        found[node] = own or {s for n in operands for s in found[n]}
        yield node, found[node] or (every if is_part else set())
