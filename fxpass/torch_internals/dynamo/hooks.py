"""Guarded positions: the points where Dynamo is taught that ``idx[i].item()`` is a number it can guard on.

    pos = int(self._current_idx[i].item())        stock: graph break, or an unbacked symbol
                                                  kvfix: SymInt input s0 with a guard, pos = s0
    assert pos_tensor + n <= limit, f"..."        stock: graph break      kvfix: guard s0 + n <= limit
    cache[:, start_tensor:end_tensor] = k         stock: data dependent   kvfix: cache[:, s0:s0 + n] = k
    sdpa(..., is_causal=(pos == 0))               stock: fails            kvfix: guard s0 != 0, is_causal=False

Six hooks do it, each active only in a frame that is being compiled for kvfix: `TensorVariable.call_method` (reads),
the conditional jumps (predicates), `OutputGraph.create_proxy` (indices, slice bounds and SymBool arguments),
`VariableBuilder.wrap_symint` (positions are not negative), `VariableBuilder.wrap_symfloat` (floats are constants while they
stay) and `VariableBuilder.wrap_literal` (ints of modules). Values come from `table.Table`; what it cannot resolve goes the
stock way. Meanwhile the garbage collector rests.
"""

from __future__ import annotations

import dis
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.graph.numbers import known
from fxpass.index_tensors.arithmetic import (
    FOLDS,
    PAIRWISE,
    NotCovered,
    all_of,
    any_of,
    how_many,
    int32,
    product,
    total,
)
from fxpass.index_tensors.contents import Arith, Element, Entry, GraphInt, in_order
from fxpass.index_tensors.table import Table
from fxpass.options import Options
from fxpass.torch_internals import garbage_collection
from fxpass.torch_internals.dynamo.names import (
    BuiltinVariable,
    ConstantVariable,
    FrameStateSizeEntry,
    GuardBuilder,
    InstructionTranslatorBase,
    ListVariable,
    OutputGraph,
    SymNodeVariable,
    TensorVariable,
    ValueMutationNew,
    is_constant_source,
    process_automatic_dynamic,
)
from fxpass.torch_internals.patches import patch, patch_attribute
from fxpass.torch_internals.symbols import free_unbacked_symbols

from . import dynamism, element_variables, fixed_sizes, frames, indexing, module_ints
from .compilation import compiling
from .sources import AggregateSource, PositionSource

_PAIRWISE = {total: operator.add, product: operator.mul}
MAX_SIZE = 256
"""A number that takes more operators and symbols than this to write down is not followed."""
MAX_FLOATS = 3
"""For as many values of a float that stays a graph is made."""


def parse_options_early(options_of: Callable[[Any], Options | None], begin: Callable[[Options], None]) -> None:
    """Let `torch.compile` itself raise on wrong options, before anything is called; ``begin`` gets the right ones."""

    def optimize(stock: Any, *args: Any, **kwargs: Any) -> Any:
        options = options_of(kwargs.get("backend", args[0] if args else None))
        if options is not None:
            begin(options)
        return stock(*args, **kwargs)

    patch("torch._dynamo.optimize", optimize, contain=False)  # wrong options are an error


def install(is_ours: Callable[[Any], bool]) -> None:
    """Install the hooks; ``is_ours(compiler_fn)`` says whether a frame's backend is kvfix."""
    patch("torch._dynamo.convert_frame._compile", functools.partial(_compile, is_ours))
    patch("torch._dynamo.variables.TensorVariable.call_method", functools.partial(_call_method, is_ours))
    patch("torch._dynamo.variables.builder.VariableBuilder.wrap_symint", functools.partial(_wrap_symint, is_ours))
    patch("torch._dynamo.variables.builder.VariableBuilder.wrap_symfloat", functools.partial(_wrap_symfloat, is_ours))
    patch("torch._dynamo.variables.builder.VariableBuilder.wrap_literal", functools.partial(_wrap_literal, is_ours))
    patch("torch._dynamo.output_graph.OutputGraph.create_proxy", functools.partial(_create_proxy, is_ours))
    for cls in _translators(InstructionTranslatorBase):
        for opname in _JUMPS & dis.opmap.keys():
            patch_attribute(cls.dispatch_table, dis.opmap[opname], functools.partial(_jump, is_ours))  # type: ignore[attr-defined]


_OR_POP = {"JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"}
"""Up to Python 3.11; later ones put a copy on the stack for the jump to take."""
_JUMPS = {
    "POP_JUMP_IF_FALSE",
    "POP_JUMP_IF_TRUE",
    "POP_JUMP_FORWARD_IF_FALSE",
    "POP_JUMP_FORWARD_IF_TRUE",
    "POP_JUMP_BACKWARD_IF_FALSE",
    "POP_JUMP_BACKWARD_IF_TRUE",
    "UNARY_NOT",
    *_OR_POP,
}


# -- the hooks


def _call_method(
    is_ours: Callable[..., bool], stock: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any
) -> Any:
    if name == "item" and not args and not kwargs and is_ours(tx.output.compiler_fn):
        value = _resolve(tx, self)
        if value is not None:
            return value
    if name == "tolist" and not args and not kwargs and is_ours(tx.output.compiler_fn):
        values = _resolve_all(tx, self)
        if values is not None:
            return values
    return stock(self, tx, name, args, kwargs)


def _wrap_literal(is_ours: Callable[..., bool], stock: Any, self: Any, value: Any) -> Any:
    if type(value) is int and is_ours(self.tx.output.compiler_fn) and module_ints.moves(self.tx, self.source, value):
        return self.wrap_symint(value)
    return stock(self, value)


def _wrap_symint(is_ours: Callable[..., bool], stock: Any, self: Any, value: int, *args: Any, **kwargs: Any) -> Any:
    """A number that is not negative now is guarded to stay so: ``max(0, 8 * s0)`` is then known to be ``8 * s0``.

    Zero is a guarded constant, as in `element_variables`: the empty cache is a graph of its own also where sizes are dynamic.
    """
    if not is_ours(self.tx.output.compiler_fn):
        return stock(self, value, *args, **kwargs)
    dynamism.see_int(self.tx, self.source.name, value)
    ours = isinstance(self.source, (PositionSource, AggregateSource))  # `element_variables` has decided
    made = self.name in self.tx.output.unspec_variable_map or is_constant_source(self.source)
    if value == 0 and not ours and not made:
        process_automatic_dynamic(self.tx, self.source.name, FrameStateSizeEntry.make_scalar(value))
        self.install_guards(GuardBuilder.CONSTANT_MATCH)
        return ConstantVariable.create(value)
    variable = stock(self, value, *args, **kwargs)
    if value >= 0 and not variable.is_python_constant():
        bool(variable.sym_num >= 0)
    return variable


def _wrap_symfloat(is_ours: Callable[..., bool], stock: Any, self: Any, value: float) -> Any:
    """A float that stays from call to call is a guarded constant, also where another model has another, or all is dynamic."""
    known = self.name in self.tx.output.unspec_variable_map or is_constant_source(self.source)
    if not is_ours(self.tx.output.compiler_fn) or known:
        return stock(self, value)
    if not frames.may_fix(self.tx.output.root_tx.f_code, self.source.name, value, MAX_FLOATS):
        return stock(self, value)
    process_automatic_dynamic(self.tx, self.source.name, FrameStateSizeEntry.make_scalar(value))
    self.install_guards(GuardBuilder.CONSTANT_MATCH)
    return ConstantVariable.create(value, source=self.source)


def _jump(is_ours: Callable[..., bool], stock: Any, tx: Any, inst: Any) -> None:
    """The jump sees the outcome; where it leaves its operand on the stack, as for ``or``, that is still the tensor."""
    depth, operand = len(tx.stack), tx.stack[-1]
    tensor = operand.realize() if hasattr(operand, "realize") else operand
    value = _resolve(tx, tensor) if isinstance(tensor, TensorVariable) and is_ours(tx.output.compiler_fn) else None
    if value is not None:
        tx.stack[-1] = _decide(tx, value)
    stock(tx, inst)
    if value is not None and inst.opname in _OR_POP and len(tx.stack) == depth:
        tx.stack[-1] = operand


def _create_proxy(is_ours: Callable[..., bool], stock: Any, self: OutputGraph, *args: Any, **kwargs: Any) -> Any:
    if len(args) < 3 or args[0] not in ("call_function", "call_method") or not is_ours(self.compiler_fn):
        return stock(self, *args, **kwargs)
    kind, target, operands, *rest = args
    operands = indexing.with_number_operands(target, operands, functools.partial(_number_in, self))
    if indexing.is_indexing(target):
        index = indexing.with_number_bounds(operands[1], functools.partial(_number_in, self))
        sliced = indexing.slices(operands[0], index)
        if sliced:
            dynamism.see_slice(self.root_tx, operands[0].node, sliced)
        tensor, index = indexing.selected(self.root_tx, operands[0], index)
        operands = (tensor, index, *operands[2:])
    if getattr(target, "__module__", None) != "_operator":
        operands = fx.node.map_aggregate(operands, _specialize_bool)
        rest = [fx.node.map_aggregate(r, _specialize_bool) if isinstance(r, dict) else r for r in rest]
    return stock(self, kind, target, operands, *rest, **kwargs)


def _number_in(output: OutputGraph, tensor: fx.Proxy) -> Any:
    value = _resolve_node(output.root_tx, tensor.node)
    return None if value is None else value.as_proxy()


def _specialize_bool(arg: Any) -> Any:
    value = arg.node.meta.get("example_value") if isinstance(arg, fx.Proxy) else None
    if isinstance(value, torch.SymBool) and not free_unbacked_symbols(value):
        return bool(value)  # guards
    return arg


# -- from a tensor to a number


def _resolve(tx: Any, tensor: Any) -> Any:
    return _resolve_node(tx, tensor.as_proxy().node)


def _resolve_node(tx: Any, node: fx.Node) -> Any:
    """The number in the tensor ``node`` as a constant or SymInt variable, or None where the table does not know."""
    output = tx.output
    if node.graph is not output.graph:
        return None  # in a higher-order operator's subgraph
    fixed_sizes.fix_numbers(tx, node)
    entry = Table.of(output.graph).entry(node)
    try:
        return None if entry is None else _variable(tx, entry)
    except NotCovered:
        return None


def _resolve_all(tx: Any, tensor: Any) -> Any:
    """What `tolist` gives, as constants and SymInt variables, or None where the table does not know it all."""
    node = tensor.as_proxy().node
    if node.graph is not tx.output.graph:
        return None
    fixed_sizes.fix_numbers(tx, node)
    array = Table.of(tx.output.graph).array(node)
    if array is None:
        return None

    def nested(part: Any) -> Any:
        if isinstance(part, list):
            return ListVariable([nested(p) for p in part], mutation_type=ValueMutationNew())
        return _variable(tx, part)

    try:
        return nested(array.tolist())
    except NotCovered:
        return None


def _variable(tx: Any, entry: Entry) -> Any:
    """``entry`` as a constant, which is guarded on here, or a SymInt variable; what it is computed from is in the graph once,
    unless Dynamo has taken it out again."""
    if isinstance(entry, int):
        return ConstantVariable.create(entry)
    made = Table.of(tx.output.graph).variables
    for part in in_order([entry], functools.partial(element_variables.is_aggregate, tx)):
        if part not in made or made[part].is_python_constant() or made[part].as_proxy().node._erased:
            made[part] = _made(tx, part, made)
    return made[entry]


def _made(tx: Any, entry: Element | GraphInt | Arith, made: Mapping[Entry, Any]) -> Any:
    if isinstance(entry, Element):
        return element_variables.element_variable(tx, entry)
    if isinstance(entry, GraphInt):
        value = entry.node.meta["example_value"]
        return SymNodeVariable.create(tx, fx.Proxy(entry.node, tx.output.root_tracer), value)
    if element_variables.is_aggregate(tx, entry):
        return element_variables.aggregate_variable(tx, entry)
    args = [ConstantVariable.create(arg) if isinstance(arg, int) else made[arg] for arg in entry.args]
    if entry.fn is int32:
        return _within(args[0])
    if entry.fn in (any_of, all_of, how_many):
        return ConstantVariable.create(entry.fn(*(bool(_number_of(arg)) for arg in args)))  # guards
    if entry.fn in FOLDS and entry.fn not in PAIRWISE:
        raise NotCovered
    return functools.reduce(functools.partial(_joined, tx, _PAIRWISE.get(entry.fn, entry.fn)), args[1:], args[0])


def _joined(tx: Any, fn: Callable[..., Any], *args: Any) -> Any:
    if fn in (max, min):
        a, b = map(_number_of, args)
        if known(a >= b) or known(a <= b):
            return args[known(a >= b) == (fn is min)]
    if sum(_size(arg) for arg in args) > MAX_SIZE:
        raise NotCovered
    return BuiltinVariable(fn).call_function(tx, list(args), {})


def _number_of(variable: Any) -> Any:
    return variable.as_python_constant() if variable.is_python_constant() else variable.sym_num


def _size(variable: Any) -> int:
    """How many operators and symbols ``variable`` is written with; SymPy takes time to the power of nested ones."""
    value = _number_of(variable)
    return 1 if isinstance(value, int) else sum(1 for _ in sympy.preorder_traversal(value.node.expr))


def _within(number: Any) -> Any:
    """``number`` in 32 bits; one that moves is guarded to fit into them, as what overflows is not followed."""
    if number.is_python_constant():
        return ConstantVariable.create(int32(number.as_python_constant()))
    if not (number.sym_num >= -(2**31) and number.sym_num < 2**31):
        raise NotCovered
    return number


def _decide(tx: Any, value: Any) -> Any:
    """The outcome of a branch on a position, as a constant; what it rests on becomes a guard."""
    if value.is_python_constant():
        return ConstantVariable.create(bool(value.as_python_constant()))
    frame = tx.frame_summary()
    Table.of(tx.output.graph).predicates.append((str(value.sym_num), f"{frame.filename}:{frame.lineno}"))
    return ConstantVariable.create(bool(value.sym_num))


# -- plumbing


def _compile(is_ours: Callable[[Any], bool], stock: Any, *args: Any, **kwargs: Any) -> Any:
    compiler_fn = kwargs["compiler_fn"] if "compiler_fn" in kwargs else args[5]
    if not is_ours(compiler_fn):
        with compiling(False):
            return stock(*args, **kwargs)
    with garbage_collection.paused(), compiling(True), frames.following(kwargs["code"] if "code" in kwargs else args[0]):
        return stock(*args, **kwargs)


def _translators(base: type) -> list[type]:
    found: list[type] = [base]
    subclasses: list[type] = base.__subclasses__()
    for cls in subclasses:
        found += _translators(cls)
    return found
