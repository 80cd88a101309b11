"""Dynamo variables for what an index tensor holds: for one element, or for a number that many elements make.

    int(idx[0])          a guarded constant until it moves; then a SymInt input
    int(lens.max())      the same for the maximum: one number, whatever row it comes from
    (pad > 0).any()      a guarded constant
    int(at[-1])          of a tensor whose length is a symbol: a SymInt input (`expressions`)
    int(lens[slots][0])  what no rule covers: a guarded constant until it moves; then a SymInt input
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from fxpass.index_tensors import expressions, mirror
from fxpass.index_tensors.arithmetic import NotCovered
from fxpass.index_tensors.contents import Arith, Element, extreme_of, in_order, tensors
from fxpass.index_tensors.expressions import Expression
from fxpass.index_tensors.formula import evaluate, formula_text
from fxpass.index_tensors.functions import FOLDS, PAIRWISE
from fxpass.index_tensors.history import ElementHistory
from fxpass.index_tensors.small_tensors import is_small_int
from fxpass.index_tensors.table import Table
from fxpass.torch_internals.dynamo.frames.history import see_elements
from fxpass.torch_internals.dynamo.guards.frame_values import NOTHING, value_named
from fxpass.torch_internals.dynamo.guards.sources import (
    AggregateSource,
    AgreementSource,
    ExpressionSource,
    PositionSource,
)
from fxpass.torch_internals.dynamo.names import (
    ConstantVariable,
    FrameStateSizeEntry,
    GuardBuilder,
    VariableBuilder,
    auto_dynamic,
    install_guard,
    process_automatic_dynamic,
)
from fxpass.torch_internals.symbols import DimDynamic


def element_variable(tx: Any, element: Element) -> Any:
    """The variable of ``element``: a guarded constant until it has been seen to change, and a SymInt graph input from then on.

    Elements that have never been seen to differ share one input, under a guard that they are equal, as equal sizes share one
    symbol in PyTorch. So they do with their maximum or minimum, which asks for no such guard where no element is read.
    """
    argument = _argument(element.tensor)
    source = PositionSource(argument.source, element.index)
    inputs = tx.output.unspec_variable_map
    if source.name in inputs:
        return inputs[source.name]
    history, moved = _seen(tx, element.tensor)
    value = mirror.values(argument.example)[element.index]
    if not history.independent and (element.index not in moved or value == 0):
        return _constant(source, value)
    equal = _equal(tx, element.tensor, history, source, [element.index])
    if equal is not None:
        return equal
    return _number(tx, dataclasses.replace(source, is_there=_is_of_fixed_size(element.tensor)), value)


def is_aggregate(tx: Any, entry: Arith) -> bool:
    """Whether ``entry`` gets one variable of its own, and is not computed from variables of its elements."""
    if entry.fn not in FOLDS or formula_text(entry) is None:
        return False
    if entry.fn not in PAIRWISE:
        return True
    (tensor,) = tensors([entry])
    history, _ = _seen(tx, tensor)
    group, *others = {history.groups[i] for i in _indices(entry)}
    if others or extreme_of(entry) is None:
        return bool(others)
    name = AggregateSource(_argument(tensor).source, formula_text(entry)).name
    return Table.of(tx.output.graph).equals.get((tensor, group), (name,))[0] == name


def aggregate_variable(tx: Any, entry: Arith) -> Any:
    """The variable of ``entry``: a SymInt graph input once one of its elements has been seen to change. Before that, and always
    for a truth value, it is a guarded constant."""
    text = formula_text(entry)
    (tensor,) = tensors([entry])
    argument = _argument(tensor)
    assert text is not None
    source = AggregateSource(argument.source, text, extreme=extreme_of(entry))
    inputs = tx.output.unspec_variable_map
    if source.name in inputs:
        return inputs[source.name]
    value = evaluate(text, mirror.values(argument.example))
    history, moved = _seen(tx, tensor)
    if isinstance(value, bool) or value == 0 or not moved.intersection(_indices(entry)):
        return _constant(source, value)
    equal = _equal(tx, tensor, history, source, source.extreme.places) if source.extreme is not None else None
    return _number(tx, source, value) if equal is None else equal


def _equal(tx: Any, tensor: fx.Node, history: ElementHistory, source: Any, places: Iterable[int]) -> Any:
    """The variable of a number that equals the one at ``source``, made of the elements at ``places``, under a guard that all
    elements agree which both are made of. None if there is none; the one at ``source`` stands for its equals from here on."""
    groups = {history.groups[i] for i in places}
    if len(groups) > 1:
        return None
    inputs, equals = tx.output.unspec_variable_map, Table.of(tx.output.graph).equals
    name, others = equals.setdefault((tensor, *groups), (source.name, tuple(places)))
    if name not in inputs:
        return None
    first, *rest = sorted({*others, *places})
    for place in rest:
        agreement = AgreementSource(source.base, first, place)
        install_guard(agreement.make_guard(GuardBuilder.CONSTANT_MATCH))
    inputs[source.name] = inputs[name]
    return inputs[name]


def expression_variable(tx: Any, expression: Expression) -> Any:
    """The variable of the number that ``expression`` makes.

    It is a SymInt graph input if an input has any length, since tensors of other lengths hold other numbers. Otherwise it is
    one once the number, or an element of an input, has moved. Before that, and always for a truth value and for zero, it is a
    guarded constant. A float becomes what `wrap_symfloat` makes of a float of the caller's.
    """
    arguments = [_argument(node) for node in expression.inputs]
    if not arguments:
        return ConstantVariable.create(_computed(expression, []))
    source = ExpressionSource(arguments[0].source, expression.text, tuple(a.source for a in arguments[1:]))
    inputs = tx.output.unspec_variable_map
    if source.name in inputs:
        return inputs[source.name]
    value = _computed(expression, [_held(a) for a in arguments])
    if not _can_be_found(tx, source):
        raise NotCovered
    Table.of(tx.output.graph).inputs().known.update(expression.inputs)
    if isinstance(value, float):
        return _without_source(VariableBuilder(tx, source).wrap_symfloat(value))
    if isinstance(value, bool):
        return _constant(source, value)
    state = process_automatic_dynamic(tx, source.name, FrameStateSizeEntry.make_scalar(value))
    if value == 0:
        return _constant(source, value)
    moves = expression.has_any_length or state.scalar is auto_dynamic or any(_moves(tx, n) for n in expression.inputs)
    return _number(tx, source, value) if moves else _constant(source, value)


def _computed(expression: Expression, given: list[Any]) -> Any:
    """The number that ``expression`` makes of ``given``."""
    value = expressions.computed_number(expression.text, given)
    if value is None:
        raise NotCovered
    return value


def _moves(tx: Any, node: fx.Node) -> bool:
    """Whether ``node`` is a number, which is an input once it has moved, or an index tensor that has been seen to change."""
    return isinstance(node.meta["example_value"], torch.SymInt) or is_small_int(node) and bool(_seen(tx, node)[1])


def _held(argument: Any) -> Any:
    """The tensor or the int that a graph input is given."""
    example = argument.example
    return example.node.hint if isinstance(example, torch.SymInt) else example


def _can_be_found(tx: Any, source: Any) -> bool:
    """Whether the names of several inputs lead to them from the locals and globals of the frame, where guards look for them."""
    names = (source.base.name, *source.names) if source.others else ()
    return all(value_named(tx, name) is not NOTHING for name in names)


def _indices(entry: Arith) -> set[int]:
    return {part.index for part in in_order([entry]) if isinstance(part, Element)}


def _seen(tx: Any, tensor: fx.Node) -> tuple[ElementHistory, set[int]]:
    """The history of the elements of ``tensor``, and the indices of those that have been seen to change.

    All elements are looked at, since decoding may read other ones than the prefill has read.
    """
    argument = _argument(tensor)
    values = mirror.values(argument.example)
    history = see_elements(tx.output.root_tx.f_code, argument.source.name, values)
    names = [PositionSource(argument.source, i).name for i in range(len(values))]
    entries = [FrameStateSizeEntry.make_scalar(value) for value in values]
    states = [process_automatic_dynamic(tx, name, entry) for name, entry in zip(names, entries, strict=True)]
    moved = {i for i, state in enumerate(states) if state.scalar is auto_dynamic}
    return history, set(range(len(values))) if history.independent else moved


def _argument(tensor: fx.Node) -> Any:
    argument = tensor.meta.get("grapharg")
    if argument is None:
        raise NotCovered  # an input of a function that a higher-order operator runs
    return argument


def _constant(source: Any, value: Any) -> Any:
    install_guard(source.make_guard(GuardBuilder.CONSTANT_MATCH))
    return ConstantVariable.create(value)


def _is_of_fixed_size(tensor: fx.Node) -> bool:
    """Whether a guard on ``tensor`` itself says how many elements it has."""
    return all(isinstance(size, int) for size in tensor.meta["example_value"].shape)


def _number(tx: Any, source: Any, value: int) -> Any:
    return _without_source(VariableBuilder(tx, source).wrap_symint(value, dynamism=DimDynamic.DYNAMIC))


def _without_source(number: Any) -> Any:
    """``number`` without a source: what is at its source may be written by the time that it is used after the graph."""
    number.source = None
    return number
