"""After each compiled call, the host mirror learns what the graph's own arithmetic has made of its index tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils._sympy.printers import PythonPrinter

from . import mirror
from .table import Arith, Element, Entry, Number, Table, numbers, tensors

OfArgs = Callable[[Sequence[Any]], int]


def advancing(compiled: Callable[..., Any], gm: fx.GraphModule) -> Callable[..., Any]:
    """``compiled``, followed by the mirror's update: ``idx' = idx + n`` is computed on the host too."""
    placeholders = [n for n in gm.graph.nodes if n.op == "placeholder"]
    moved: list[tuple[int, Sequence[Entry]]] = []
    of_args: dict[Number, OfArgs | None] = {}
    for node, contents in Table.of(gm.graph).moved().items():
        if any(entry is None for entry in contents):
            continue
        mine = {n: _of_args(n, placeholders) for entry in contents for n in numbers(entry)}  # type: ignore[arg-type]
        if all(mine.values()):
            of_args.update(mine)
            moved.append((placeholders.index(node), contents))  # type: ignore[arg-type]
    if not moved:
        return compiled

    sources = list(dict.fromkeys(t for _, contents in moved for entry in contents for t in tensors(entry)))
    read = [placeholders.index(tensor) for tensor in sources]
    plans = [(i, as_function(contents, sources, of_args)) for i, contents in moved]

    def run(*args: Any) -> Any:
        before = [mirror.values(args[i]) for i in read]
        results = compiled(*args)
        for i, after in plans:  # while the device works
            mirror.advance(args[i], after(before, args))
        return results

    return run


def as_function(
    contents: Sequence[Entry], sources: Sequence[fx.Node], of_args: Mapping[Number, Any]
) -> Callable[..., Any]:
    """``contents`` as a function of what the index tensors ``sources`` held before and of the graph's arguments.

    One lambda for all of them: layers may be many, and each has an element.
    """
    known: dict[Any, str] = {}

    def code(entry: Entry) -> str:
        if isinstance(entry, Element):
            return f"before[{sources.index(entry.tensor)}][{entry.index}]"
        if isinstance(entry, Number):
            return f"{known.setdefault(of_args[entry], f'c{len(known)}')}(args)"
        if isinstance(entry, Arith):
            fn = known.setdefault(entry.fn, f"c{len(known)}")
            return f"{fn}({', '.join(code(arg) for arg in entry.args)})"
        return repr(entry)

    source = f"lambda before, args: [{', '.join(f'int({code(entry)})' for entry in contents)}]"
    return eval(source, {name: value for value, name in known.items()})


def _of_args(number: Number, placeholders: Sequence[fx.Node]) -> OfArgs | None:
    """``number`` (``s0 + 1``, a size) as a function of the graph's arguments, or None where they do not tell."""
    expr = sympy.sympify(number.node.meta["example_value"].node.expr)
    places: dict[sympy.Symbol, tuple[int, int | None]] = {}
    for i, node in enumerate(placeholders):
        value = node.meta.get("example_value")
        if isinstance(value, torch.SymInt):
            places.setdefault(value.node.expr, (i, None))
        elif isinstance(value, torch.Tensor):
            for dim, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt):
                    places.setdefault(size.node.expr, (i, dim))
    symbols = sorted(expr.free_symbols, key=str)
    if not all(s in places for s in symbols):
        return None
    code = f"lambda {', '.join(map(str, symbols))}: {PythonPrinter().doprint(expr)}"
    fn = eval(code, {"math": math, "torch": torch})
    wanted = [places[s] for s in symbols]
    return lambda args: fn(*(args[i] if dim is None else args[i].shape[dim] for i, dim in wanted))
