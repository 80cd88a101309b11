"""What small integer tensors hold, symbolically, at each point of the graph captured so far.

Dynamo knows the shapes of an index tensor, not its contents. This table follows the contents: every element of an
integer graph input is an `Element`, arithmetic on it an `Arith`, and a small tensor is a numpy array of those.
numpy's views are PyTorch's views, so a `setitem` through one name is seen through the other, in program order:

    idx = [e0, e1]            graph input
    a = idx[0]                array view      a   = e0
    b = a + 1                 fresh array     b   = e0 + 1
    idx[0] = b                in place        idx = [e0 + 1, e1], and a = e0 + 1 too

What is not in the rules (`contents`) is not in the table, and keeps Dynamo's stock behaviour.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from fxpass.graph.schemas import memory_of
from fxpass.torch_internals.fakes import FakeTensor

from .address_ranges import AddressRange
from .arithmetic import FACTORIES, RULES, NotCovered, hold
from .contents import Element, Entry, GraphInt
from .operators import by_operator, may_write

MAX_ELEMENTS = 1024
"""A graph input with more elements than this is data, not an index tensor."""
_ATTRIBUTE = "_kvfix_table"
_RULES, _FACTORIES = by_operator(RULES), by_operator(FACTORIES)


class Table:
    """The contents of a Dynamo graph's small integer tensors; follows the graph as it grows."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.predicates: list[tuple[str, str]] = []
        """Branches on positions that became guards: the condition, and the source line."""
        self.variables: dict[Entry, Any] = {}
        """What Dynamo has been given for entries, as nodes of the graph."""
        self._arrays: dict[fx.Node, np.ndarray] = {}
        self._lost: set[fx.Node] = set()
        self._ranges: dict[fx.Node, AddressRange] = {}
        """Those of the graph inputs that have been known or written to; Dynamo drops what it does not need."""
        self._written: set[fx.Node] = set()
        self._done: set[fx.Node] = set()
        self._failed = False
        """Whether an op was met with an error of ours: nothing is known from then on."""

    @classmethod
    def of(cls, graph: fx.Graph) -> Table:
        """The one table of ``graph``, made on first use; it lives as long as the graph does.

        An attribute holds it: the table holds nodes, and so the graph, which no map by weak keys would ever let go.
        """
        if not hasattr(graph, _ATTRIBUTE):
            setattr(graph, _ATTRIBUTE, cls(graph))
        return getattr(graph, _ATTRIBUTE)

    def start_again(self) -> None:
        """Follow the graph from its start: sizes that were symbols are known now."""
        self._arrays.clear()
        self._lost.clear()
        self._done.clear()

    def entry(self, node: fx.Node) -> Entry | None:
        """What the one-element tensor ``node`` holds now, or None when the table does not know."""
        self._catch_up()
        array = self._array(node)
        if array is None or array.size != 1:
            return None
        return array.reshape(-1)[0]

    def array(self, node: fx.Node) -> np.ndarray | None:
        """All entries of the small tensor ``node`` as they are now, in its shape, or None when the table does not know."""
        self._catch_up()
        return self._array(node)

    def contents(self, placeholder: fx.Node) -> tuple[Entry | None, ...] | None:
        """All entries of the graph input ``placeholder`` now, row-major; None where unknown."""
        self._catch_up()
        array = self._array(placeholder)
        return None if array is None else tuple(array.reshape(-1))

    def index_tensors(self) -> list[fx.Node]:
        """The graph inputs that the table has had to look at."""
        return [node for node in self._arrays if node.op == "placeholder"]

    def moved(self) -> dict[fx.Node, tuple[Entry | None, ...]]:
        """The contents of the index tensors in which the graph leaves other numbers than it found."""
        held = {node: self.contents(node) for node in self.index_tensors()}
        return {n: own for n, own in held.items() if own and any(e != Element(n, i) for i, e in enumerate(own))}

    def address_ranges(self) -> list[tuple[AddressRange, bool, bool]]:
        """Where the graph inputs lie that matter: each with whether the graph writes to it, and whether it is known."""
        self._catch_up()
        return [(own, n in self._written, n in self._arrays) for n, own in self._ranges.items()]

    # -- following the graph

    def _catch_up(self) -> None:
        """Step through the ops that are new: they stand at the end, behind one that is not."""
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
                self._failed = True  # it may be half done
                raise

    def _step(self, node: fx.Node) -> None:
        target, written = node.target, may_write(node)
        for operand in written:
            self._write(operand)
        if target in _FACTORIES and _is_small_int(node):
            made = self._applied(functools.partial(_FACTORIES[target], _shape(node)), node)
            if made is not None and hold(made, node.meta["example_value"].dtype):
                self._arrays[node] = made
            return
        if target in _RULES and any(self._array(a) is not None for a in node.all_input_nodes):
            out = self._applied(_RULES[target], node)
            if out is not None:
                changed = node if isinstance(node.meta.get("example_value"), torch.Tensor) else node.args[0]
                if not hold(out, changed.meta["example_value"].dtype):  # a float that is written to an index tensor
                    self._lose(changed)
                elif _is_small_int(node, bool_too=True):
                    self._keep(node, out)
                return
        for operand in written:
            self._lose(operand)

    def _applied(self, rule: Callable[..., Any], node: fx.Node) -> Any:
        """``rule`` on the operands of ``node``; None for an overload or an operand that it does not cover."""
        try:
            return rule(*_map(node.args, self._operand), **_map(node.kwargs, self._operand))
        except (NotCovered, TypeError, ValueError, IndexError):
            return None

    def _keep(self, node: fx.Node, out: np.ndarray) -> None:
        """Track ``out``, sharing memory with the operands as PyTorch's result does."""
        for source in node.all_input_nodes:
            array = self._array(source)
            if array is None:
                continue
            shared = np.shares_memory(out, array)
            if _memory(source) == _memory(node) and not shared:
                return  # an alias for PyTorch, a copy for numpy: not followed
            if shared and _memory(source) != _memory(node):
                out = out.copy()
        self._arrays[node] = out

    def _operand(self, node: fx.Node) -> Any:
        array = self._array(node)
        if array is not None:
            return array
        value = node.meta.get("example_value")
        if isinstance(value, torch.Tensor) or value is None:
            raise NotCovered
        if isinstance(value, (int, bool)):
            return value
        if isinstance(value, torch.SymInt):
            fixed = _fixed(value)
            return GraphInt(node) if isinstance(fixed, torch.SymInt) else fixed
        raise NotCovered

    def _array(self, node: fx.Node) -> np.ndarray | None:
        if self._failed:
            return None
        if node not in self._arrays and node.op == "placeholder" and node not in self._lost and _is_small_int(node):
            if self._neighbours(node) & self._written:
                self._lost.add(node)
                return None
            shape = _shape(node)
            flat = np.empty(math.prod(shape), dtype=object)
            for i in range(flat.size):
                flat[i] = Element(node, i)
            self._arrays[node] = flat.reshape(shape)
        return self._arrays.get(node)

    def _write(self, node: fx.Node) -> None:
        """What is written to ``node`` is written to the graph input that it is a view of: others that lie there are lost."""
        memory = _memory(node)
        for written in self.graph.find_nodes(op="placeholder"):
            if memory is not None and _memory(written) == memory and self._range(written) is not None:
                self._written.add(written)
                for other in self._neighbours(written):
                    self._lose(other)

    def _neighbours(self, node: fx.Node) -> set[fx.Node]:
        """The other graph inputs that lie where the graph input ``node`` does."""
        own = self._range(node)
        if own is None:
            return set()
        return {n for n, other in self._ranges.items() if n is not node and own.overlaps(other)}

    def _range(self, node: fx.Node) -> AddressRange | None:
        if node not in self._ranges and (own := AddressRange.of(node)) is not None:
            self._ranges[node] = own
        return self._ranges.get(node)

    def _lose(self, node: fx.Node) -> None:
        """Forget everything that shares memory with ``node``: an unknown op may have written there."""
        memory = _memory(node)
        for other in [
            n for n in (*self._arrays, *self.graph.nodes) if n is node or memory is not None and _memory(n) == memory
        ]:
            self._lost.add(other)
            self._arrays.pop(other, None)


def _is_small_int(node: fx.Node, bool_too: bool = False) -> bool:
    value = node.meta.get("example_value")
    if type(value) not in (FakeTensor, torch.Tensor) or value.layout is not torch.strided:
        return False
    kinds = (torch.int32, torch.int64, torch.bool) if bool_too else (torch.int32, torch.int64)
    if value.dtype not in kinds or not all(isinstance(s, int) for s in _shape(node)):
        return False
    return 0 < math.prod(_shape(node)) <= MAX_ELEMENTS


def _shape(node: fx.Node) -> tuple[Any, ...]:
    return tuple(_fixed(size) for size in node.meta["example_value"].shape)


def _fixed(size: Any) -> Any:
    """``size`` as an int, where guards have made it one."""
    known = size.node.maybe_as_int() if isinstance(size, torch.SymInt) else None
    return size if known is None else known


def _memory(node: fx.Node) -> int | None:
    return memory_of(node.meta.get("example_value"))


def _map(tree: Any, fn: Callable[[fx.Node], Any]) -> Any:
    """Like `fx.node.map_arg`, for results that are not graph arguments."""
    if isinstance(tree, fx.Node):
        return fn(tree)
    if isinstance(tree, (tuple, list)):
        return type(tree)(_map(t, fn) for t in tree)
    if isinstance(tree, dict):
        return {k: _map(v, fn) for k, v in tree.items()}
    if isinstance(tree, slice):
        return slice(*(_map(t, fn) for t in (tree.start, tree.stop, tree.step)))
    return tree
