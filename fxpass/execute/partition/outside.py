"""Finds the heavy ops that are left outside of the core, and what keeps them there.

    core        linear, attention
    epilogue    sum(x * weights[:n])   linear                 outside: linear, since n moves

A product or attention over a symbolic size runs in a part of its own, kernel by kernel, and so does what needs its result. The
light ops of such a part are named, too (`beside`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.kinds import Symbol
from fxpass.graph import aliases
from fxpass.graph.numbers import symbols

from .split import Part, is_heavy, values_of

_MOST_LINES = 6
"""The lines of code that are named of a part with light ops."""


def outside(
    parts: Sequence[Part], bound: Set[Any], table: Sequence[Symbol], source_of: Callable[[fx.Node], str]
) -> list[str]:
    """The heavy ops in those of ``parts`` that have symbols that are not ``bound``, a line of text each: the user's line of
    code, the op, and what these symbols are of, as the ``table`` of a report calls it."""
    names = {name: f"{symbol.of} ({symbol.kind})" for symbol in table for name in symbol.symbol.split(", ")}
    found: dict[str, None] = {}
    for part in parts:
        for node, causes in () if part.static else _causes(part, bound):
            if is_heavy(node):
                why = dict.fromkeys(names.get(text, text) for text in sorted(map(str, causes)))
                found[reasons.OUTSIDE_THE_CORE.text(source=source_of(node), op=node.target, why=", ".join(why))] = None
    return list(found)


def beside(parts: Sequence[Part], source_of: Callable[[fx.Node], str]) -> list[str]:
    """The light ops beside a static part that make new tensors of one dim or more, a line of text for each other part: the
    user's lines of code, with the ops of each."""
    found: list[str] = []
    for part in parts if any(part.static for part in parts) else ():
        lines: dict[str, dict[str, None]] = {}
        for node in () if part.static else part.gm.graph.nodes:
            if _is_light_work(node):
                lines.setdefault(source_of(node), {})[str(node.target)] = None
        shown = [f"{source}: {', '.join(ops)}" for source, ops in list(lines.items())[:_MOST_LINES]]
        more = [f"and {len(lines) - _MOST_LINES} lines more"] if len(lines) > _MOST_LINES else []
        found += [reasons.BESIDE.text(part=part.name, ops="; ".join([*shown, *more]))] if shown else []
    return found


def _is_light_work(node: fx.Node) -> bool:
    made = [v for v in values_of(node) if isinstance(v, torch.Tensor) and v.dim()]
    is_op = node.op == "call_function" and node.target is not operator.getitem
    return bool(is_op and made and aliases.base(node) is None and not is_heavy(node))


def works_on(parts: Sequence[Part], lengths: Set[Any], source_of: Callable[[fx.Node], str]) -> str | None:
    """The first heavy op of ``parts`` whose result is as long as something with a symbol of ``lengths``, and its line."""
    for part in parts:
        for node in part.gm.graph.nodes:
            if is_heavy(node) and any(symbols(size) & lengths for v in values_of(node) for size in getattr(v, "shape", ())):
                return f"{source_of(node)}: {node.target}"
    return None


def _causes(part: Part, bound: Set[Any]) -> Iterator[tuple[fx.Node, set[Any]]]:
    """For each op of ``part``, the symbols that it has, or that an op has that it waits for."""
    every = {s for n in part.gm.graph.nodes for v in values_of(n) for s in symbols(v)} - bound
    found: dict[fx.Node, set[Any]] = {}
    for node in part.gm.graph.nodes:
        operands = node.all_input_nodes
        own = {s for n in (node, *operands) for v in values_of(n) for s in symbols(v)} - bound
        found[node] = own or {s for n in operands for s in found[n]}
        yield node, found[node] or every
