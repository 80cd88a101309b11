"""A number that ops make of small graph inputs, as an expression that does the same to their contents on the host.

    at: i64[s0]                       int(at[-1])               v0[-1]
    lens, slots: i64[4], i64[2]       lens[slots] += 1          (t0 := v0[v1], t1 := iadd(t0, 1), t2 := setitem(v0, v1, t1),
                                      int(lens.max())            t3 := v0.max(), t3)[-1]
    done: b8[4]                       if done.all():            v0.all()

Where all sizes are known and a rule covers each op, the table knows every element, and follows it through the call (`table`).
Here it is only known that the ops are PyTorch's. Each time that a guard asks, PyTorch runs them again on copies in host memory.
`repeatable_ops` tells which ops may be run again.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.graph.numbers import hint, symbols, to_expr
from fxpass.graph.schemas import memory_of
from fxpass.graph.values import fake_value
from fxpass.torch_internals.fakes import DisableTorchFunction, FakeTensor, set_grad_enabled
from fxpass.torch_internals.operators import tensor_of_numbers
from fxpass.torch_internals.symbols import PythonPrinter

from . import mirror
from .arithmetic import NotCovered
from .operators import may_write
from .repeatable_ops import is_repeatable, is_same_anywhere
from .small_tensors import MAX_ELEMENTS, int_if_fixed
from .table import Table

MAX_LENGTH = 1024
"""In characters: longer text is not made."""
_INDICES = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_NUMBERS = (int, torch.SymInt, torch.SymFloat, torch.SymBool)
_NAMES: dict[str, Any] = {
    **{"torch": torch, "int": int, "inf": math.inf, "nan": math.nan},
    **{name: fn for name, fn in vars(operator).items() if name[0] != "_"},
}
_ERRORS = (LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError)
"""What PyTorch raises where the ops cannot be done to what the tensors hold."""


@dataclasses.dataclass(frozen=True)
class Expression:
    """``text`` over ``v0``, ``v1`` and so on, which stand for the graph inputs ``inputs``."""

    inputs: tuple[fx.Node, ...]
    text: str

    @property
    def has_any_length(self) -> bool:
        """Whether a size of one of the inputs is a symbol."""
        return any(isinstance(int_if_fixed(s), torch.SymInt) for n in self.inputs for s in getattr(fake_value(n), "shape", ()))

    def element(self, place: int) -> Expression:
        """Element ``place``, row-major, of the tensor that this makes."""
        return Expression(self.inputs, f"{self.text}.flatten()[{place}]")


def computed_number(text: str, inputs: Sequence[Any]) -> int | bool | float | None:
    """The number that ``text`` makes of ``inputs``, which are tensors and ints; None where there is none. The caller's
    function modes are off: what they do to ops has been traced already."""
    try:
        with DisableTorchFunction():
            made = _function(text)([_on_host(v) if isinstance(v, torch.Tensor) else v for v in inputs])
            return made.item() if isinstance(made, torch.Tensor) else made  # type: ignore[no-any-return]
    except _ERRORS:
        return None


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in host memory, with the strides of ``tensor``: they tell which ops give views."""
    held = torch.tensor(mirror.values(tensor), dtype=tensor.dtype, device="cpu")
    if tensor.is_contiguous():
        return held.reshape(tensor.shape)
    size, stride = tensor.shape, tensor.stride()
    reach = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    memory = held.new_zeros(reach)
    memory[torch.arange(reach).as_strided(size, stride).reshape(-1)] = held
    return memory.as_strided(size, stride)


@functools.lru_cache(1024)
def _function(text: str) -> Any:
    scope = dict(_NAMES)
    return eval(f"lambda v: {text}", scope)


def expression_of(table: Table, *nodes: fx.Node, form: str = "{}") -> Expression | None:
    """How ``nodes``, put in ``form``, are computed from small inputs of the graph as it stands, or from none; None where they
    are not.

    A ``form`` says what is made of tensors beyond the graph's ops: ``int({})``, ``torch.equal({}, {})``.
    """
    needed = _needed(table, nodes)
    inputs = tuple(n for n in needed if n.op == "placeholder")
    try:
        if not all(_is_input(table, n) for n in inputs):
            return None
        names = {n: f"v[{i}]" for i, n in enumerate(inputs)}
        ops = [n for n in needed if n not in inputs]
        floats = list(filter(_takes_or_gives_floats, ops))
        if floats and not _under_other_settings(nodes[0].graph).isdisjoint(floats):
            return None
        steps = _steps(ops, names)
    except NotCovered:
        return None
    result = form.format(*(names[n] for n in nodes))
    return Expression(inputs, f"({', '.join([*steps, result])})[-1]" if steps else result)


def _needed(table: Table, nodes: Sequence[fx.Node]) -> list[fx.Node]:
    """``nodes``, all nodes that they are computed from, and all ops that write to one of these, in the order of the graph."""
    writers = [(op, memory_of(fake_value(target))) for op, target in table.writes()]
    needed: set[fx.Node] = set()
    given = {to_expr(fake_value(n)): n for n in nodes[0].graph.find_nodes(op="placeholder") if _is_number(n)}
    waiting = list(nodes)
    while waiting:
        needed |= set(waiting)
        memories = {memory_of(fake_value(n)) for n in needed} - {None}
        operands = {n for own in waiting for n in _operands(own, given)}
        waiting = list((operands | {n for n, memory in writers if memory in memories}) - needed)
    return sorted(needed)


def _operands(node: fx.Node, given: dict[Any, fx.Node]) -> Iterable[fx.Node]:
    """What ``node`` is computed from. A number, such as a size of a large tensor, is computed from those ``given`` to the
    graph."""
    own = symbols(fake_value(node)) if _is_number(node) and node.op != "placeholder" else set()
    return map(given.__getitem__, own) if own and own <= given.keys() else node.all_input_nodes


def _is_number(node: fx.Node) -> bool:
    return isinstance(fake_value(node), torch.SymInt)


def _under_other_settings(graph: fx.Graph) -> set[fx.Node]:
    """The nodes of ``graph`` from the first call on that takes no tensor and returns None. That call may have set autocast or
    the default dtype, and a guard finds these as they were before it."""
    nodes = list(graph.nodes)
    for i, node in enumerate(nodes):
        of_tensors = any(isinstance(v, torch.Tensor) for n in node.all_input_nodes for v in _values(n))
        if node.op == "call_function" and fake_value(node) is None and not of_tensors and node.target is not set_grad_enabled:
            return set(nodes[i:])
    return set()


def _takes_or_gives_floats(op: fx.Node) -> bool:
    tensors = (v for n in (op, *op.all_input_nodes) for v in _values(n) if isinstance(v, torch.Tensor))
    return any(v.is_floating_point() for v in tensors)


def _is_input(table: Table, placeholder: fx.Node) -> bool:
    """Whether ``placeholder`` can be asked before the call, and holds then what the graph finds in it."""
    value = fake_value(placeholder)
    if placeholder.meta.get("grapharg") is None:
        return False
    if isinstance(value, torch.SymInt):
        return True
    return _is_small(value) and value.dtype in _INDICES and not table.inputs().is_written_elsewhere(placeholder)


def _is_small(value: Any) -> bool:
    if type(value) not in (FakeTensor, torch.Tensor) or value.layout is not torch.strided:
        return False
    elements = hint(value.numel())
    return elements is not None and elements <= MAX_ELEMENTS


def _steps(ops: Sequence[fx.Node], names: dict[fx.Node, str]) -> list[str]:
    """The assignments: one for each of ``ops`` if one of them writes, otherwise one for each that is used twice. ``names`` gets
    the text of each op."""
    steps: list[str] = []
    simple = not any(may_write(n) for n in ops)
    for op in ops:
        text = _call(op, names)
        if simple and sum(user in ops for user in op.users) < 2:
            names[op] = text
        else:
            names[op] = f"t{len(steps)}"
            steps.append(f"{names[op]} := {text}")
        if len(text) > MAX_LENGTH or sum(map(len, steps)) > MAX_LENGTH:
            raise NotCovered
    return steps


def _call(node: fx.Node, names: dict[fx.Node, str]) -> str:
    values = _values(node)
    if _is_number(node) and (text := _number(node, names)):
        return text
    if not all(_is_small(v) or isinstance(v, _NUMBERS) or v is None for v in values):
        raise NotCovered
    if not all(v.is_cpu or is_same_anywhere(node, v) for v in values if isinstance(v, torch.Tensor)):
        raise NotCovered
    operands = [_operand(a, names) for a in node.args]
    operands += [f"{key}={_operand(a, names)}" for key, a in node.kwargs.items()]
    if node.target is operator.getitem:
        return f"{operands[0]}[{operands[1]}]"
    if node.op == "call_method" and is_repeatable(node.target):
        return f"{operands[0]}.{node.target}({', '.join(operands[1:])})"
    name, target = getattr(node.target, "__name__", ""), node.target
    if target is tensor_of_numbers or target is torch.tensor:
        return f"torch.tensor({', '.join(operands)})"
    if node.op == "call_function" and _NAMES.get(name) is target:
        return f"{name}({', '.join(operands)})"
    if node.op != "call_function" or getattr(torch, name, None) is not target or not is_repeatable(name):
        raise NotCovered
    return f"torch.{name}({', '.join(operands)})"


def _number(node: fx.Node, names: dict[fx.Node, str]) -> str:
    """``node`` as arithmetic on the numbers that the graph is given; empty where one of them has no name."""
    given = {to_expr(fake_value(n)): name for n, name in names.items() if n.op == "placeholder" and _is_number(n)}
    if not symbols(fake_value(node)) <= given.keys():
        return ""
    named = {symbol: sympy.Symbol(name) for symbol, name in given.items()}
    return str(PythonPrinter().doprint(to_expr(fake_value(node)).xreplace(named)))


def _operand(operand: Any, names: dict[fx.Node, str]) -> str:
    if isinstance(operand, (tuple, list)):
        inner = "".join(f"{_operand(part, names)}, " for part in operand)
        return f"({inner})" if isinstance(operand, tuple) else f"[{inner}]"
    if isinstance(operand, slice):
        return f"slice({', '.join(_operand(part, names) for part in (operand.start, operand.stop, operand.step))})"
    if isinstance(operand, fx.Node):
        return names[operand]
    if isinstance(operand, torch.device):
        return "'cpu'"
    if operand is None or type(operand) in (int, bool, float, str, torch.dtype, type(...)):
        return "..." if operand is ... else repr(operand)
    raise NotCovered


def _values(node: fx.Node) -> Sequence[Any]:
    value = fake_value(node)
    return value if isinstance(value, (tuple, list)) else [value]
