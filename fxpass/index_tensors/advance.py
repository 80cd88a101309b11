"""After each compiled call, the host mirror learns what the graph has written to its index tensors.

    idx = idx + n        on the device, by the compiled graph        mirror: (4,) -> (4 + n,), by the same arithmetic

So the next guard on an element of ``idx`` asks the mirror, and the device is not read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.torch_internals.patches import tell
from fxpass.torch_internals.symbols import PythonPrinter

from . import mirror
from .contents import Arith, Element, Entry, GraphInt, graph_ints, in_order, tensors
from .functions import on_host
from .table import Table


class PicklableFunction:
    """The function that the text ``source`` evaluates to. It can be pickled: it is made again from ``source`` and ``names``."""

    def __init__(self, source: str, names: Mapping[str, Any]) -> None:
        self._made_of = (source, dict(names))
        self.fn: Callable[..., Any] = eval(source, {"math": math, "torch": torch, **names})

    def __call__(self, *args: Any) -> Any:
        return self.fn(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return PicklableFunction, self._made_of


@dataclasses.dataclass(frozen=True)
class Advance:
    """How a graph changes its index tensors, which are named by their places among its arguments.

    read: the index tensors that the new contents are computed from.
    moved: each index tensor that the graph changes, with its new contents as a function of two arguments: the old contents
        of the tensors in ``read``, and the arguments of the call.
    """

    read: Sequence[int] = ()
    moved: Sequence[tuple[int, PicklableFunction]] = ()

    @classmethod
    def of(cls, gm: fx.GraphModule) -> Advance:
        """The advance of the Dynamo graph ``gm``. Index tensors whose new contents the table does not know are left out."""
        placeholders = gm.graph.find_nodes(op="placeholder")
        moved: list[tuple[int, Sequence[Entry]]] = []
        of_args: dict[GraphInt, PicklableFunction | None] = {}
        table = Table.of(gm.graph)
        for node, contents in table.moved().items():
            if any(entry is None for entry in contents):
                continue
            mine = {n: _of_args(n, placeholders) for n in graph_ints(contents)}
            if all(mine.values()):
                of_args.update(mine)
                moved.append((placeholders.index(node), contents))  # type: ignore[arg-type]
        sources = tensors(entry for _, contents in moved for entry in contents)
        functions = [(i, as_function(contents, sources, of_args)) for i, contents in moved]
        return cls([placeholders.index(tensor) for tensor in sources], functions)

    def after(self, compiled: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls ``compiled``, and then computes the new contents on the host for the mirror."""
        if not self.moved:
            return compiled
        read, moved = self.read, [(i, new.fn) for i, new in self.moved]

        def run(*args: Any) -> Any:
            try:
                before = [mirror.values(args[i]) for i in read]
            except Exception as error:
                tell(Advance.after, error)
                return compiled(*args)
            results = compiled(*args)
            try:
                for i, new in moved:  # while the device works
                    mirror.advance(args[i], new(before, args))
            except Exception as error:  # what is not advanced is read anew
                tell(Advance.after, error)
            return results

        return run


def as_function(contents: Sequence[Entry], sources: Sequence[fx.Node], of_args: Mapping[GraphInt, Any]) -> PicklableFunction:
    """``contents`` as a function of the old contents of the index tensors ``sources`` and of the graph's arguments.

    All entries are computed by one lambda, since a model of many layers may have an entry for each. An operand that several
    entries share is computed once:

        lambda before, args: (e0 := before[0][0], e1 := c0(e0, 1), [int(e1), int(e1)])[-1]
    """
    known: dict[Any, str] = {}
    names: dict[Entry, str] = {}
    places = {tensor: i for i, tensor in enumerate(sources)}

    def operand(entry: Entry) -> str:
        return repr(entry) if isinstance(entry, int) else names[entry]

    def code(entry: Element | GraphInt | Arith) -> str:
        if isinstance(entry, Element):
            return f"before[{places[entry.tensor]}][{entry.index}]"
        if isinstance(entry, GraphInt):
            return f"{known.setdefault(of_args[entry], f'c{len(known)}')}(args)"
        fn = known.setdefault(on_host(entry.fn), f"c{len(known)}")
        return f"{fn}({', '.join(operand(arg) for arg in entry.args)})"

    steps = []
    for entry in in_order(contents):
        value = code(entry)
        names[entry] = f"e{len(names)}"
        steps.append(f"{names[entry]} := {value}")
    results = ", ".join(f"int({operand(entry)})" for entry in contents)
    source = f"lambda before, args: ({', '.join([*steps, f'[{results}]'])},)[-1]"
    return PicklableFunction(source, {name: value for value, name in known.items()})


def _of_args(number: GraphInt, placeholders: Sequence[fx.Node]) -> PicklableFunction | None:
    """``number`` (``s0 + 1``, a size) as a function of the graph's arguments; None where the arguments do not tell it."""
    expr = sympy.sympify(number.node.meta["example_value"].node.expr)
    places: dict[sympy.Symbol, str] = {}
    for i, node in enumerate(placeholders):
        value = node.meta.get("example_value")
        if isinstance(value, torch.SymInt):
            places.setdefault(value.node.expr, f"args[{i}]")
        elif isinstance(value, torch.Tensor):
            for dim, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt):
                    places.setdefault(size.node.expr, f"args[{i}].shape[{dim}]")
    symbols = sorted(expr.free_symbols, key=str)
    if not all(s in places for s in symbols):
        return None
    function = f"(lambda {', '.join(map(str, symbols))}: {PythonPrinter().doprint(expr)})"
    return PicklableFunction(f"lambda args: {function}({', '.join(places[s] for s in symbols)})", {})
