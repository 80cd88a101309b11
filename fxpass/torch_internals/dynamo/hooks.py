"""The hooks by which Dynamo is taught that ``idx[i].item()`` is a number that it can guard on.

    pos = int(self._current_idx[i].item())        stock: graph break, or an unbacked symbol
                                                  kvfix: SymInt input s0 with a guard, pos = s0
    assert pos_tensor + n <= limit, f"..."        stock: graph break      kvfix: guard s0 + n <= limit
    cache[:, start_tensor:end_tensor] = k         stock: data dependent   kvfix: cache[:, s0:s0 + n] = k
    sdpa(..., is_causal=(pos == 0))               stock: fails            kvfix: guard s0 != 0, is_causal=False

These are installed here. All but the first act only in a frame that is being compiled for kvfix:

    convert_frame._compile                 frames that Dynamo fails on (`graph_breaks.retries`)
    TensorVariable.call_method             reads of a number
    conditional jumps, ``TO_BOOL``         branches on a number, and its truth value
    ``BUILD_STRING``                       texts that numbers are put into (`calls.texts`)
    OutputGraph.create_proxy               indices, slice bounds and SymBool arguments
    VariableBuilder.wrap_symint            positions are not negative, and not large
    VariableBuilder.wrap_symfloat          a float is a constant while it does not change
    VariableBuilder.wrap_literal           ints of modules
    iter_contains, ``is``                  numbers in lists, truth values that are asked for
    _automatic_dynamic                     strides of what grows (`sizes.handed_on`)
    OutputGraph.compile_subgraph           functions that are not compiled (`graph_breaks.excluded_functions`)
    has_tensor_in_frame                    what goes on behind a break without a tensor (`graph_breaks.resumed_functions`)

The hooks of `calls`, and a few others, stand in files of their own, which `torch_internals.install` goes through.
`variables.numbers` tells which number a tensor holds. Where it does not know, Dynamo does what it does without kvfix.
"""

from __future__ import annotations

import dis
import functools
import operator
from collections.abc import Callable
from types import CodeType
from typing import Any

import torch
from torch import fx

from fxpass.graph.values import example_value
from fxpass.options import Options
from fxpass.torch_internals.dynamo.calls import indexing, masks, texts
from fxpass.torch_internals.dynamo.calls.operands import with_numbers
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.graph_breaks import excluded_functions, resumed_functions, retries
from fxpass.torch_internals.dynamo.names import (
    BuiltinVariable,
    ConstantVariable,
    InstructionTranslatorBase,
    OutputGraph,
    SymNodeVariable,
    TensorVariable,
    compare_op_handlers,
    type_dispatch,
)
from fxpass.torch_internals.dynamo.sizes import dynamism, handed_on
from fxpass.torch_internals.dynamo.variables.list_lengths import length_of
from fxpass.torch_internals.dynamo.variables.numbers import (
    branch_outcome,
    known_truth,
    number_in,
    number_or_itself,
    numbers_in,
)
from fxpass.torch_internals.dynamo.variables.realized import realized
from fxpass.torch_internals.dynamo.variables.wrapped_numbers import wrap_literal, wrap_symfloat, wrap_symint
from fxpass.torch_internals.operators import tensor_of_numbers
from fxpass.torch_internals.patches import on_uninstall, patch, patch_attribute
from fxpass.torch_internals.symbols import free_unbacked_symbols


def parse_options_early(options_of: Callable[[Any], Options | None], begin: Callable[[Options], None]) -> None:
    """Let `torch.compile` itself raise on wrong options, before anything is called. ``begin`` is called with the right ones."""

    def optimize(stock: Any, *args: Any, **kwargs: Any) -> Any:
        options = options_of(kwargs.get("backend", args[0] if args else None))
        if options is not None:
            begin(options)
        return stock(*args, **kwargs)

    patch("torch._dynamo.optimize", optimize, contain=False)  # errors in options are for the user


def install(is_ours: Callable[[Any], bool], left: Callable[[Any, CodeType, Exception], None]) -> None:
    """Install the hooks; ``is_ours(compiler_fn)`` says whether a frame's backend is kvfix. ``left`` is told of a function that
    Dynamo leaves to eager, although it has traced operators of it: the backend, the code, and the error."""
    patch("torch._dynamo.convert_frame._compile", functools.partial(retries.compile_frame, is_ours, left))
    is_ours = functools.partial(_acts_for, is_ours)
    patch("torch._dynamo.variables.TensorVariable.call_method", functools.partial(_call_method, is_ours))
    patch("torch._dynamo.variables.builder.VariableBuilder.wrap_symint", functools.partial(wrap_symint, is_ours))
    patch("torch._dynamo.variables.builder.VariableBuilder.wrap_symfloat", functools.partial(wrap_symfloat, is_ours))
    on_uninstall(type_dispatch.cache_clear)
    patch("torch._dynamo.variables.builder.VariableBuilder.wrap_literal", functools.partial(wrap_literal, is_ours))
    type_dispatch.cache_clear()  # made before, it holds `wrap_literal` as it was
    patch("torch._dynamo.variables.lists.iter_contains", functools.partial(_contains, is_ours))
    handed_on.install(is_ours)
    excluded_functions.install(is_ours)
    resumed_functions.install()
    patch("torch._dynamo.output_graph.OutputGraph.create_proxy", functools.partial(_create_proxy, is_ours))
    for name in ("is", "is not"):
        patch_attribute(compare_op_handlers, name, _is)
    for cls in _translators(InstructionTranslatorBase):
        table: Any = cls.dispatch_table  # type: ignore[attr-defined]
        for opname in _JUMPS & dis.opmap.keys():
            patch_attribute(table, dis.opmap[opname], functools.partial(_jump, is_ours))
        patch_attribute(table, dis.opmap["BUILD_STRING"], texts.build_string)
        if "TO_BOOL" in dis.opmap:
            patch_attribute(table, dis.opmap["TO_BOOL"], functools.partial(_to_bool, is_ours))


_OR_POP = {"JUMP_IF_FALSE_OR_POP", "JUMP_IF_TRUE_OR_POP"}
"""These exist up to Python 3.11. Later versions copy the operand for the jump."""
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
    if name in ("item", "__index__") and not args and not kwargs and is_ours(tx.output.compiler_fn):
        value = number_in(tx, self.as_proxy().node)
        if value is not None:
            return value
    if name == "tolist" and not args and not kwargs and is_ours(tx.output.compiler_fn):
        values = numbers_in(tx, self.as_proxy().node)
        if values is not None:
            return values
    return stock(self, tx, name, args, kwargs)


def _contains(is_ours: Callable[..., bool], stock: Any, items: Any, search: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
    """``idx[0] in (4, 5)`` compares the number that the tensor holds, where Dynamo gives a tensor. ``3 in lens.tolist()``
    compares numbers that move as well, with one guard on the outcome, where Dynamo looks at constants alone."""
    items = list(items)
    if not is_ours(tx.output.compiler_fn):
        return stock(items, search, tx, *args, **kwargs)
    search, *items = [known_truth(tx, number_or_itself(tx, variable)) for variable in (search, *items)]
    if search.is_python_constant():
        sought = search.as_python_constant()
        sought = int(sought) if isinstance(sought, bool) else sought  # True is 1
        equal = [item.sym_num == sought for item in items if isinstance(item, SymNodeVariable)]
        if equal and isinstance(sought, (int, float)) and bool(functools.reduce(operator.or_, equal)):  # guards
            return ConstantVariable.create(True)
    return stock(items, search, tx, *args, **kwargs)


def _is(stock: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    """``(p > 4) is True`` asks for the outcome, where Dynamo says that a number is never True."""
    return stock(tx, args if current_compilation() is None else [known_truth(tx, arg) for arg in args], kwargs)


def _jump(is_ours: Callable[..., bool], stock: Any, tx: Any, inst: Any) -> None:
    """Let the jump take the outcome as a constant. If it leaves its operand on the stack, as for ``or``, that stays the tensor.

    An ``assert`` that no table answers goes into the graph, as in stock: the device looks, and no guard waits for it.
    """
    depth, operand = len(tx.stack), tx.stack[-1]
    value = _truth_of(tx, operand, by_ops=not _is_assert(tx.next_instruction)) if is_ours(tx.output.compiler_fn) else None
    if value is not None:
        tx.stack[-1] = branch_outcome(tx, value)
    stock(tx, inst)
    if value is not None and inst.opname in _OR_POP and len(tx.stack) == depth:
        tx.stack[-1] = operand


def _truth_of(tx: Any, operand: Any, by_ops: bool) -> Any:
    """The number that makes ``operand`` true: what a tensor holds, or the length of a list. None where it is not known."""
    value = length_of(tx, operand)
    if value is not None:
        return value
    tensor = realized(operand)
    return number_in(tx, tensor.as_proxy().node, by_ops) if isinstance(tensor, TensorVariable) else None


def _is_assert(following: Any) -> bool:
    """Whether a jump over the instruction ``following`` is that of an ``assert``."""
    return following.opname == "LOAD_ASSERTION_ERROR" or following.argval is AssertionError


def _to_bool(is_ours: Callable[..., bool], stock: Any, tx: Any, inst: Any) -> None:
    """Make a truth value of a number. From Python 3.13 on, ``not not x`` is this instruction alone, which Dynamo takes for a
    part of a jump or of ``not``."""
    if tx.next_instruction.opname in _JUMPS or not is_ours(tx.output.compiler_fn):
        return stock(tx, inst)
    tx.push(BuiltinVariable(bool).call_function(tx, [tx.pop()], {}))


def _create_proxy(is_ours: Callable[..., bool], stock: Any, self: OutputGraph, *args: Any, **kwargs: Any) -> Any:
    if len(args) < 3 or args[0] not in ("call_function", "call_method") or not is_ours(self.compiler_fn):
        return stock(self, *args, **kwargs)
    compilation = current_compilation()
    if compilation is not None:
        compilation.works = True
    kind, target, operands, *rest = args
    named = rest[0] if rest and isinstance(rest[0], dict) else {}
    operands, named = with_numbers(target, operands, named, functools.partial(_number_in, self))
    rest = [named, *rest[1:]] if rest else rest
    operands = masks.with_places(self.root_tx, target, operands)
    if (taken := masks.without_mask(self.root_tx, target, operands, named)) is not None:
        return stock(self, "call_method", *taken, {}, **kwargs)
    if indexing.is_indexing(target):
        index = indexing.with_number_bounds(operands[1], functools.partial(_number_in, self))
        sliced = indexing.slices(operands[0], index)
        if sliced:
            dynamism.see_slice(self.root_tx, operands[0].node, sliced)
        tensor, index = indexing.selected(self.root_tx, operands[0], index)
        operands = (tensor, fx.node.map_aggregate(index, _specialize_bool), *operands[2:])
    if target in _ON_TRUTHS or getattr(target, "__module__", None) != "_operator" and target not in _OF_NUMBERS:
        operands = fx.node.map_aggregate(operands, _specialize_bool)
        rest = [fx.node.map_aggregate(r, _specialize_bool) if isinstance(r, dict) else r for r in rest]
    return stock(self, kind, target, operands, *rest, **kwargs)


_OF_NUMBERS = {getattr(torch, name, None) for name in ("sym_float", "sym_int", "sym_not", "sym_ite", "sym_sum")}
_OF_NUMBERS |= {tensor_of_numbers, torch.tensor, torch.scalar_tensor, torch.full}
"""Functions that make a number, or a tensor, of a SymBool."""
_ON_TRUTHS = {operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge}
"""Functions of which SymPy has another result for a truth value, ``(p > 4) == 1``, or none."""


def _number_in(output: OutputGraph, tensor: fx.Proxy) -> Any:
    value = number_in(output.root_tx, tensor.node)
    return None if value is None else value.as_proxy()


def _specialize_bool(arg: Any) -> Any:
    value = example_value(arg)
    if isinstance(value, torch.SymBool) and not free_unbacked_symbols(value):
        return bool(value)  # guards
    return arg


# -- plumbing


def _acts_for(is_ours: Callable[[Any], bool], compiler_fn: Any) -> bool:
    """Whether hooks act on the frame that is compiled with ``compiler_fn``."""
    return current_compilation() is not None and is_ours(compiler_fn)


def _translators(base: type) -> list[type]:
    found: list[type] = [base]
    subclasses: list[type] = base.__subclasses__()
    for cls in subclasses:
        found += _translators(cls)
    return found
