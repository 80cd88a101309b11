"""The cut: a dynamic prologue, one static core, a dynamic epilogue.

    prologue     what has symbolic sizes, or takes a number, and does not wait for the core     (scaling a growing series)
    core         what has fixed sizes, fixed strides and takes no number                        (the transformer)
    epilogue     what has symbolic sizes and needs the core, and all that follows from it

The core starts at the first *anchor*: a static op that does real work (a matmul, attention) or writes to an input's memory.
Small static ops that only feed the prologue belong to it. In-place ops keep their place in the order of their memory: a write
comes after every earlier read of the same memory and before every later one, across a cut, too.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Set
from typing import Any

from torch import fx

from fxpass.analysis.positions import is_scalar
from fxpass.graph import aliases
from fxpass.graph.extract import extract, operands, results
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.numbers import symbols
from fxpass.graph.values import values_of

from .addresses import static_addresses


@dataclasses.dataclass
class Part:
    """One region of a graph: its module, and the nodes of the whole graph that it takes and gives.

    ``addresses`` are the graph inputs with static addresses.
    """

    name: str
    gm: fx.GraphModule
    inputs: list[fx.Node]
    outputs: list[fx.Node]
    static: bool
    addresses: set[fx.Node]


def split(gm: fx.GraphModule, bound: Set[Any]) -> list[Part]:
    """Cut ``gm`` (rewritten, propagated) into its non-empty parts, in the order in which they run.

    Sizes over the symbols in ``bound`` count as static: the core is compiled for each of their values.
    """
    nodes = [n for n in gm.graph.nodes if n.op not in ("placeholder", "output")]
    before = dependencies(gm.graph)
    dynamic = {n for n in nodes if is_dynamic(n, bound)}
    waits: set[fx.Node] = set()
    for node in nodes:
        if any(d in waits or (d not in dynamic and _is_anchor(d)) for d in before[node]):
            waits.add(node)
    prologue = _closure((n for n in dynamic if n not in waits), before)
    after: dict[fx.Node, list[fx.Node]] = {n: [] for n in nodes}
    for node in nodes:
        for d in before[node]:
            after[d].append(node)
    epilogue = _closure((n for n in dynamic if n in waits), after)
    core = set(nodes) - prologue - epilogue
    if not any(_is_anchor(n) for n in core):
        return [_part("whole", gm, nodes, static=not dynamic)]
    for node in nodes:
        if node.target is operator.getitem:  # an element goes where its tuple goes
            home = next(g for g in (prologue, core, epilogue) if node.args[0] in g)
            for group in (prologue, core, epilogue):
                (group.add if group is home else group.discard)(node)
    groups = (("prologue", prologue, False), ("core", core, True), ("epilogue", epilogue, False))
    return [_part(name, gm, [n for n in nodes if n in group], static) for name, group, static in groups if group]


def counts_along(gm: fx.GraphModule, bound: Set[Any]) -> bool:
    """Whether nothing moves in ``gm``, beside the ``bound`` symbols, but numbers made of numbers: a counter that is returned.

    They are computed outside, and the rest is one static core.
    """
    ops = [n for n in gm.graph.nodes if n.op == "call_function"]
    moving = [n for n in ops if is_dynamic(n, bound)]
    numbers = any(symbols(v) for n in gm.graph.find_nodes(op="placeholder") for v in values_of(n))
    return numbers and all(is_scalar(n) for n in moving) and any(map(_is_anchor, ops))


def dependencies(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """For each op, the ops that must run before it: its operands, and what memory order asks for."""
    before: dict[fx.Node, list[fx.Node]] = {}
    last_write: dict[int, fx.Node] = {}
    reads: dict[int, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        deps = [i for i in node.all_input_nodes if i.op != "placeholder"]
        targets = {aliases.storage(w) for w in aliases.written(node)} - {None}
        for memory in {m for i in node.all_input_nodes for m in aliases.storages(i)}:
            if memory in last_write:
                deps.append(last_write[memory])
            if memory in targets:
                deps += reads.pop(memory, [])
                last_write[memory] = node
            else:
                reads.setdefault(memory, []).append(node)
        before[node] = [d for d in dict.fromkeys(deps) if d is not node]
    return before


def is_dynamic(node: fx.Node, bound: Set[Any]) -> bool:
    """Whether ``node`` makes or takes a number, or a tensor with a symbolic size or stride (those ``bound`` aside)."""
    return any(symbols(v) - bound for n in (node, *node.all_input_nodes) for v in values_of(n))


def _is_anchor(node: fx.Node) -> bool:
    return is_heavy(node) or any(aliases.root(w).op == "placeholder" for w in aliases.written(node))


def _closure(start: Iterable[fx.Node], step: dict[fx.Node, list[fx.Node]]) -> set[fx.Node]:
    found, todo = set(), list(start)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += step[node]
    return found


def _part(name: str, gm: fx.GraphModule, nodes: list[fx.Node], static: bool) -> Part:
    takes, gives = operands(nodes), results(nodes)
    return Part(name, extract(gm, nodes, takes, gives, name), takes, gives, static, static_addresses(gm))
