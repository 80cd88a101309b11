"""What small integer tensors hold, symbolically, at each point of the graph captured so far.

Dynamo knows the shapes of an index tensor, not its contents. This table follows the contents: every element of an
integer graph input is an `Element`, arithmetic on it an `Arith`, and a small tensor is a numpy array of those.
numpy's views are PyTorch's views, so a `setitem` through one name is seen through the other, in program order:

    idx = [e0, e1]            graph input
    a = idx[0]                array view      a   = e0
    b = a + 1                 fresh array     b   = e0 + 1
    idx[0] = b                in place        idx = [e0 + 1, e1], and a = e0 + 1 too

What is not in the rules below is not in the table, and keeps Dynamo's stock behaviour.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import fx

MAX_ELEMENTS = 1024
"""A graph input with more elements than this is data, not an index tensor."""
_ATTRIBUTE = "_kvfix_table"
_KNOWN_MODULES = ("torch", "_operator", "math", "builtins", "einops")
"""Where functions come from that write to no operand unless their name says so."""


@dataclasses.dataclass(frozen=True)
class Element:
    """Element ``index`` (row-major) of the graph input ``tensor``, as it was when the graph was entered."""

    tensor: fx.Node
    index: int


@dataclasses.dataclass(frozen=True)
class Number:
    """The SymInt that ``node`` of the graph stands for: a size, an int argument, arithmetic on them."""

    node: fx.Node


@dataclasses.dataclass(frozen=True)
class Arith:
    """``fn(*args)`` over entries: integer arithmetic or a comparison."""

    fn: Callable[..., Any]
    args: tuple[Entry, ...]


Entry = int | bool | Element | Number | Arith


def numbers(entry: Entry) -> Iterator[Number]:
    """The graph's own numbers that ``entry`` is computed from."""
    if isinstance(entry, Number):
        yield entry
    elif isinstance(entry, Arith):
        for arg in entry.args:
            yield from numbers(arg)


def tensors(entry: Entry) -> Iterator[fx.Node]:
    """The index tensors that ``entry`` is computed from."""
    if isinstance(entry, Element):
        yield entry.tensor
    elif isinstance(entry, Arith):
        for arg in entry.args:
            yield from tensors(arg)


class Table:
    """The contents of a Dynamo graph's small integer tensors; follows the graph as it grows."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.predicates: list[tuple[str, str]] = []
        """Branches on positions that became guards: the condition, and the source line."""
        self._arrays: dict[fx.Node, np.ndarray] = {}
        self._lost: set[fx.Node] = set()
        self._done: set[fx.Node] = set()

    @classmethod
    def of(cls, graph: fx.Graph) -> Table:
        """The one table of ``graph``, made on first use; it lives as long as the graph does."""
        if not hasattr(graph, _ATTRIBUTE):
            setattr(graph, _ATTRIBUTE, cls(graph))
        return getattr(graph, _ATTRIBUTE)

    def entry(self, node: fx.Node) -> Entry | None:
        """What the one-element tensor ``node`` holds now, or None when the table does not know."""
        self._catch_up()
        array = self._array(node)
        if array is None or array.size != 1:
            return None
        value = array.reshape(-1)[0]
        return value

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
            self._step(node)

    def _step(self, node: fx.Node) -> None:
        if _is_small_int(node) and _name(node) in _FACTORIES:
            try:
                self._arrays[node] = _FACTORIES[_name(node)](node, self._operand)
            except _Unknown:
                pass
            return
        rule = _RULES.get(_name(node)) if any(self._array(a) is not None for a in node.all_input_nodes) else None
        if rule is not None:
            try:
                out = rule(*_map(node.args, self._operand), **_map(node.kwargs, self._operand))
            except (
                _Unknown,
                TypeError,
                ValueError,
                IndexError,
            ):  # an overload or an operand that the rule does not cover
                out = None
            if out is not None:
                if isinstance(out, np.ndarray) and _is_small_int(node, bool_too=True):
                    self._keep(node, out)
                return
        for target in _written(node):
            self._lose(target)

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
            raise _Unknown
        if isinstance(value, (int, bool)):
            return value
        if isinstance(value, torch.SymInt):
            return Number(node)
        raise _Unknown

    def _array(self, node: fx.Node) -> np.ndarray | None:
        if node not in self._arrays and node.op == "placeholder" and node not in self._lost and _is_small_int(node):
            shape = tuple(node.meta["example_value"].shape)
            flat = np.empty(math.prod(shape), dtype=object)
            for i in range(flat.size):
                flat[i] = Element(node, i)
            self._arrays[node] = flat.reshape(shape)
        return self._arrays.get(node)

    def _lose(self, node: fx.Node) -> None:
        """Forget everything that shares memory with ``node``: an unknown op may have written there."""
        memory = _memory(node)
        for other in [
            n for n in (*self._arrays, *self.graph.nodes) if n is node or memory is not None and _memory(n) == memory
        ]:
            self._lost.add(other)
            self._arrays.pop(other, None)


class _Unknown(Exception):
    """A rule met something that it does not cover."""


def _is_small_int(node: fx.Node, bool_too: bool = False) -> bool:
    value = node.meta.get("example_value")
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return False
    kinds = (torch.int32, torch.int64, torch.bool) if bool_too else (torch.int32, torch.int64)
    if value.dtype not in kinds or not all(isinstance(s, int) for s in value.shape):
        return False
    return 0 < value.numel() <= MAX_ELEMENTS


def _memory(node: fx.Node) -> int | None:
    value = node.meta.get("example_value")
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) and value.layout is torch.strided else None


def _name(node: fx.Node) -> str:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name[1:] + "_" if getattr(node.target, "__module__", None) == "_operator" and name in _IN_PLACE else name


_IN_PLACE = {f"i{name}" for name in ("add", "and", "floordiv", "lshift", "matmul", "mod", "mul", "or", "pow", "rshift", "sub",
                                     "truediv", "xor")}  # fmt: skip


def _written(node: fx.Node) -> list[fx.Node]:
    """The operands that ``node`` may write to: all of them where its target does not tell."""
    target, name, operands = node.target, _name(node), node.all_input_nodes
    if isinstance(target, torch._ops.OpOverload):
        return operands if target._schema.is_mutable else []
    if isinstance(target, torch._ops.OpOverloadPacket):
        return operands if any(getattr(target, o)._schema.is_mutable for o in target.overloads()) else []
    if isinstance(target, torch._ops.HigherOrderOperator) or "out" in node.kwargs or node.kwargs.get("inplace"):
        return operands
    module = getattr(target, "__module__", None) or "torch"
    if not isinstance(target, str) and (module.split(".")[0] not in _KNOWN_MODULES or "numpy" in type(target).__name__):
        return operands
    if (
        name not in ("setitem", "__setitem__")
        and not name.startswith("__i")
        and (not name.endswith("_") or name.endswith("__"))
    ):
        return []
    return [node.args[0]] if node.args and isinstance(node.args[0], fx.Node) else operands


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


# -- the rules: numpy does the indexing and the broadcasting, `Arith` the arithmetic


def _arith(fn: Callable[..., Any], *args: Entry | None) -> Entry | None:
    if any(arg is None for arg in args):
        return None
    if all(isinstance(arg, (int, bool)) for arg in args):
        return fn(*args)
    return Arith(fn, args)  # type: ignore[arg-type]


def _elementwise(fn: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def rule(a: Any, b: Any) -> np.ndarray:
        if isinstance(a, float) or isinstance(b, float):
            raise _Unknown
        out = np.frompyfunc(lambda x, y: _arith(fn, x, y), 2, 1)(_obj(a), _obj(b))
        return _obj(out)

    return rule


def _fold(fn: Callable[..., Any], start: Entry | None = None) -> Callable[..., np.ndarray]:
    def rule(a: np.ndarray) -> np.ndarray:
        flat = list(a.reshape(-1))
        total = flat[0] if start is None else start
        for item in flat[1:] if start is None else flat:
            total = _arith(fn, total, item)  # type: ignore[assignment]
        return _obj(total)

    return rule


def _inplace(rule: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def write(a: np.ndarray, b: Any) -> np.ndarray:
        a[...] = rule(a, b)
        return a

    return write


def _obj(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    out = np.empty((), dtype=object)
    out[()] = value
    return out


def _index(index: Any) -> tuple[Any, ...]:
    """A basic index that makes numpy return a view even for a single element."""
    index = index if isinstance(index, tuple) else (index,)
    fixed = tuple(_constant(i) if isinstance(i, np.ndarray) else i for i in index)
    if not all(i is None or i is Ellipsis or type(i) is int or _is_plain_slice(i) for i in fixed):
        raise _Unknown
    return fixed if Ellipsis in fixed else (*fixed, Ellipsis)


def _is_plain_slice(index: Any) -> bool:
    return isinstance(index, slice) and all(b is None or type(b) is int for b in (index.start, index.stop, index.step))


def _constant(array: np.ndarray) -> int:
    if array.size != 1 or type(value := array.reshape(-1)[0]) is not int:
        raise _Unknown
    return value


def _getitem(a: Any, index: Any) -> np.ndarray:
    if not isinstance(a, np.ndarray):
        raise _Unknown
    return a[_index(index)]


def _setitem(a: Any, index: Any, value: Any) -> np.ndarray:
    if not isinstance(a, np.ndarray):
        raise _Unknown
    a[_index(index)] = _obj(value)
    return a


def _select(a: np.ndarray, dim: int, index: Any) -> np.ndarray:
    index = _constant(index) if isinstance(index, np.ndarray) else index
    return a[(slice(None),) * (dim % a.ndim) + _index(index)]


def _view(a: np.ndarray, *shape: Any) -> np.ndarray:
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if not all(type(s) is int for s in shape):
        raise _Unknown
    out = a.reshape(shape)
    if not np.shares_memory(out, a):
        raise _Unknown
    return out


def _cast(a: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    wanted = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)]
    if any(dtype not in (torch.int32, torch.int64) for dtype in wanted):
        raise _Unknown
    return a.copy()


def _fill(a: np.ndarray, value: Any = 0) -> np.ndarray:
    a[...] = _obj(value)
    return a


def _reshape(a: np.ndarray, *shape: Any) -> np.ndarray:
    shape = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if not all(type(s) is int for s in shape):
        raise _Unknown
    return a.reshape(shape)


def _squeeze(a: np.ndarray, dim: int | None = None) -> np.ndarray:
    return a.squeeze() if dim is None else a.squeeze(dim) if a.shape[dim] == 1 else a


def _joined(join: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def rule(arrays: Any, dim: int = 0) -> np.ndarray:
        if not isinstance(arrays, (list, tuple)) or not all(isinstance(a, np.ndarray) for a in arrays):
            raise _Unknown
        return join(arrays, axis=dim)

    return rule


def _divided(a: Any, b: Any, *, rounding_mode: str | None = None) -> np.ndarray:
    if rounding_mode != "floor":
        raise _Unknown
    return _RULES["floordiv"](a, b)


def _clamp(a: np.ndarray, min: Any = None, max: Any = None) -> np.ndarray:
    a = a if min is None else _RULES["maximum"](a, min)
    return a.copy() if max is None else _RULES["minimum"](a, max)


_RULES: dict[str, Callable[..., np.ndarray]] = {
    "getitem": _getitem,
    "setitem": _setitem,
    "select": _select,
    "view": _view,
    "reshape": _reshape,
    "flatten": lambda a: a.reshape(-1),
    "squeeze": _squeeze,
    "unsqueeze": lambda a, dim: np.expand_dims(a, dim if dim >= 0 else dim + a.ndim + 1),
    "detach": lambda a: a,
    "contiguous": lambda a: a,
    "cpu": lambda a: a,
    "cat": _joined(np.concatenate),
    "stack": _joined(np.stack),
    "neg": lambda a: _RULES["sub"](0, a),
    "div": _divided,
    "clamp": _clamp,
    "clone": lambda a, **_: a.copy(),
    "to": _cast,
    "int": _cast,
    "long": _cast,
    "copy_": _fill,
    "fill_": _fill,
    "zero_": lambda a: _fill(a, 0),
    "max": _fold(max),
    "min": _fold(min),
    "amax": _fold(max),
    "amin": _fold(min),
    "sum": _fold(operator.add, 0),
    "prod": _fold(operator.mul, 1),
}
for _fn in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod):
    _RULES[_fn.__name__] = _elementwise(_fn)
    _RULES[_fn.__name__ + "_"] = _inplace(_RULES[_fn.__name__])
for _fn in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
    _RULES[_fn.__name__] = _elementwise(_fn)
for _names, _fn in (
    ("maximum", max),
    ("minimum", min),
    ("floor_divide", operator.floordiv),
    ("remainder", operator.mod),
):
    _RULES[_names] = _elementwise(_fn)


# -- small tensors made from numbers: ``factory(node, operand)``


def _arange(node: fx.Node, operand: Callable[[fx.Node], Any]) -> np.ndarray:
    """``arange(s, s + 4)``: a fixed number of elements, from a start that may move."""
    bounds = _map(node.args, operand)
    start = 0 if len(bounds) == 1 else bounds[0]
    if len(bounds) > 2 or {"start", "end", "step"} & node.kwargs.keys() or not all(_is_number(b) for b in bounds):
        raise _Unknown
    return _elementwise(operator.add)(np.arange(node.meta["example_value"].shape[0]).astype(object), start)


def _is_number(value: Any) -> bool:
    return type(value) is int or isinstance(value, Number)


_FACTORIES: dict[str, Callable[[fx.Node, Callable[[fx.Node], Any]], np.ndarray]] = {"arange": _arange}
