"""What small integer tensors hold, symbolically, at each point of the graph that has been captured so far.

Dynamo knows the shape of an index tensor, but not its contents. This table follows the contents: every element of an integer
graph input is an `Element`, arithmetic on elements is an `Arith`, and a small tensor is a numpy array of these entries. Views
in PyTorch are views in numpy, so what is written through one name is seen through the other, in program order:

    idx = [e0, e1]            graph input
    a = idx[0]                a view          a   = e0
    b = a + 1                 a new array     b   = e0 + 1
    idx[0] = b                in place        idx = [e0 + 1, e1], and a = e0 + 1 too

`rules` says what an op makes of the arrays, and `arrays` which of them share memory. A tensor that no rule covers is not in the
table, and Dynamo does with it what it does without kvfix.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import fx

from .address_ranges import AddressRange, WrittenInputs
from .arithmetic import NotCovered, apply, hold
from .arrays import Arrays
from .contents import Element, Entry, GraphInt
from .functions import COMPARISONS
from .operators import by_operator, may_write
from .rules import FACTORIES, RULES
from .small_tensors import int_if_fixed, is_small_int, shape_of

_tables: ContextVar[dict[fx.Graph, Table] | None] = ContextVar("tables", default=None)
"""The tables of the graphs that Dynamo makes of the frame that is being compiled in this thread."""
_RULES, _FACTORIES = by_operator(RULES), by_operator(FACTORIES)


class Table:
    """The contents of the small integer tensors of a Dynamo graph. The table catches up with the graph when it is asked."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.predicates: list[tuple[str, str]] = []
        """The branches on positions that became guards: each condition with its source line."""
        self.variables: dict[Entry, Any] = {}
        """The Dynamo variables that stand for entries."""
        self.equals: dict[tuple[fx.Node, int], tuple[str, tuple[int, ...]]] = {}
        """By tensor and group of elements that have always agreed: the number that stands for them, and the elements that it is
        made of."""
        self.places: dict[tuple[fx.Node, int], fx.Proxy] = {}
        """The places that a mask names, by the mask and the number of ops that have written to it."""
        self._arrays = Arrays(graph)
        self._inputs = WrittenInputs(graph)
        self._writes: list[tuple[fx.Node, fx.Node]] = []
        """The ops that may write to a tensor, each with that tensor."""
        self._done: set[fx.Node] = set()
        self._failed = False
        """Whether a rule failed with an error of ours. The table knows nothing from then on."""

    @classmethod
    def of(cls, graph: fx.Graph) -> Table:
        """The table of ``graph``: within a block of `tables` there is one, made on first use; elsewhere a new one is made."""
        tables = _tables.get()
        if tables is None:
            return cls(graph)
        if graph not in tables:
            tables[graph] = cls(graph)
        return tables[graph]

    def start_again(self) -> None:
        """Follow the graph from its start once more: sizes that were symbols have become known."""
        self._arrays.clear()
        self._writes.clear()
        self._done.clear()

    def entry(self, node: fx.Node) -> Entry | None:
        """What the one-element tensor ``node`` holds now; None where the table does not know."""
        array = self.array(node)
        return None if array is None or array.size != 1 else array.reshape(-1)[0]

    def array(self, node: fx.Node) -> np.ndarray | None:
        """All entries of the small tensor ``node`` now, in its shape; None where the table does not know them."""
        self._catch_up()
        return self._array(node)

    def contents(self, placeholder: fx.Node) -> tuple[Entry | None, ...] | None:
        """All entries of the graph input ``placeholder`` now, in row-major order; None where the table does not know them."""
        array = self.array(placeholder)
        return None if array is None else tuple(array.reshape(-1))

    def index_tensors(self) -> list[fx.Node]:
        """The graph inputs that somebody has asked the table about."""
        return [node for node in self._arrays.known if node.op == "placeholder"]

    def moved(self) -> dict[fx.Node, tuple[Entry | None, ...]]:
        """The new contents of each index tensor that the graph leaves with other numbers than it found in it."""
        held = {node: self.contents(node) for node in self.index_tensors()}
        return {n: own for n, own in held.items() if own and any(e != Element(n, i) for i, e in enumerate(own))}

    def inputs(self) -> WrittenInputs:
        """What the graph has written to so far."""
        self._catch_up()
        return self._inputs

    def writes(self) -> list[tuple[fx.Node, fx.Node]]:
        """Each op of the graph that may write to a tensor, with that tensor."""
        self._catch_up()
        return [(op, target) for op, target in self._writes if not op._erased]

    def address_ranges(self) -> list[tuple[AddressRange, bool, bool]]:
        """Where the graph inputs lie that were asked about; for each, whether it is written to, and whether it is known."""
        self._catch_up()
        written, known = self._inputs.written, self._inputs.known.union(self._arrays.known)
        return [(own, n in written, n in known) for n, own in self._inputs.ranges.items()]

    # -- following the graph

    def _catch_up(self) -> None:
        """Follow the ops that have been added to the end of the graph since the last time."""
        new = []
        for node in reversed(self.graph.nodes):
            if node in self._done:
                break
            if node.op in ("call_function", "call_method"):
                new.append(node)
        for node in reversed(new):
            self._done.add(node)
            try:
                self._step(node)
            except Exception:
                self._failed = True  # the step may be half done
                raise

    def _step(self, node: fx.Node) -> None:
        written = may_write(node)
        for operand in written:
            self._writes.append((node, operand))
            for other in self._inputs.write(operand):
                self._arrays.lose(other)
        if node.target in _FACTORIES and not written and is_small_int(node, bool_too=True):
            self._create(node)
        elif not self._follow(node):
            for operand in written:
                self._arrays.lose(operand)

    def _create(self, node: fx.Node) -> None:
        """Track a tensor that is made from numbers."""
        made = self._applied(functools.partial(_FACTORIES[node.target], shape_of(node)), node)
        if made is not None and hold(made, node.meta["example_value"].dtype):
            self._arrays.put(node, made)

    def _follow(self, node: fx.Node) -> bool:
        """Do to the arrays what ``node`` does to its operands; False where no rule says what that is."""
        if node.target not in _RULES or all(self._held(operand) is None for operand in node.all_input_nodes):
            return False
        out = self._applied(_RULES[node.target], node)
        if out is None:
            return False
        if isinstance(out, list):
            self._arrays.put_views(node, out)
            return True
        changed = node if isinstance(node.meta.get("example_value"), torch.Tensor) else node.args[0]
        if not hold(out, changed.meta["example_value"].dtype):  # type: ignore[union-attr]
            self._arrays.lose(changed)  # type: ignore[arg-type]  # a float is written to an index tensor
        elif is_small_int(node, bool_too=True):
            self._arrays.put_result(node, out)
        return True

    def _applied(self, rule: Callable[..., Any], node: fx.Node) -> Any:
        """What ``rule`` gives for the operands of ``node``; None for an overload or an operand that it does not cover."""
        try:
            return rule(*_map(node.args, self._operand), **_map(node.kwargs, self._operand))
        except (NotCovered, TypeError, ValueError, IndexError, ZeroDivisionError):
            return None

    def _operand(self, node: fx.Node) -> Any:
        """What a rule is given for the operand ``node``: its array, or the number that it stands for."""
        if (held := self._held(node)) is not None:
            return held
        value = node.meta.get("example_value")
        if isinstance(value, (int, bool)):
            return value
        if isinstance(value, torch.SymInt):
            number = int_if_fixed(value)
            return GraphInt(node) if isinstance(number, torch.SymInt) else number
        if isinstance(value, torch.SymBool) and node.target in COMPARISONS:
            operands = _map(node.args, self._operand)
            if all(isinstance(operand, Entry) for operand in operands):
                return apply(node.target, *operands)
        raise NotCovered

    def _held(self, node: fx.Node) -> np.ndarray | list[np.ndarray] | None:
        """The array of ``node``, or those of the views that it gives."""
        self._start(node)
        return None if self._failed else self._arrays.held(node)

    def _array(self, node: fx.Node) -> np.ndarray | None:
        """The array of ``node``. That of a graph input is made when it is first asked for."""
        self._start(node)
        return None if self._failed else self._arrays.get(node)

    def _start(self, node: fx.Node) -> None:
        """Follow ``node`` from here on, if it is a graph input that nobody has written to by another name."""
        if self._failed or node.op != "placeholder" or not self._arrays.may_start(node):
            return
        if self._inputs.is_written_elsewhere(node):
            self._arrays.give_up(node)
        else:
            self._arrays.start(node)


@contextlib.contextmanager
def tables() -> Iterator[None]:
    """A block in which Dynamo compiles one frame. The tables of the frame's graphs live as long as the block."""
    token = _tables.set({})
    try:
        yield
    finally:
        _tables.reset(token)


def _map(tree: Any, fn: Callable[[fx.Node], Any]) -> Any:
    """``tree`` with ``fn(node)`` for each of its nodes. The results need not be arguments of a graph, as those of
    `fx.node.map_arg` must."""
    if isinstance(tree, fx.Node):
        return fn(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_map(t, fn) for t in tree)
    if isinstance(tree, dict):
        return {k: _map(v, fn) for k, v in tree.items()}
    if isinstance(tree, slice):
        return slice(*(_map(t, fn) for t in (tree.start, tree.stop, tree.step)))
    return tree
