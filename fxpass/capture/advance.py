"""After each compiled call, the host mirror learns what the graph's own arithmetic has made of its index tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from . import mirror
from .table import Element, Entry, Number, Table, evaluate, numbers


def advancing(compiled: Callable[..., Any], gm: fx.GraphModule) -> Callable[..., Any]:
    """``compiled``, followed by the mirror's update: ``idx' = idx + n`` is computed on the host too."""
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    table = Table.of(gm.graph)
    moved: list[tuple[int, tuple[Entry, ...]]] = []
    for node in table.index_tensors():
        contents = table.contents(node)
        if contents is None or node not in placeholders:
            continue
        if any(entry is None or any(n.node not in placeholders for n in numbers(entry)) for entry in contents):
            continue
        if any(entry != Element(node, i) for i, entry in enumerate(contents)):
            moved.append((placeholders.index(node), contents))  # type: ignore[arg-type]
    if not moved:
        return compiled

    def run(*args: Any) -> Any:
        before: dict[fx.Node, tuple[int, ...]] = {}

        def leaf(element: Element | Number) -> int:
            if isinstance(element, Number):
                return args[placeholders.index(element.node)]
            if element.tensor not in before:
                before[element.tensor] = mirror.values(args[placeholders.index(element.tensor)])
            return before[element.tensor][element.index]

        after = [(i, tuple(int(evaluate(entry, leaf)) for entry in contents)) for i, contents in moved]
        results = compiled(*args)
        for i, values in after:
            mirror.advance(args[i], values)
        return results

    return run
