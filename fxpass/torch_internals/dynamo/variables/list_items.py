"""An item that a block takes out of a list by a number of its own is reached by the name of that number, not by its value.

    class Block(nn.Module):
        def forward(self, caches, x):
            cache = caches[self.number]      stock: caches[0], a graph for each block
                                             kvfix: caches[self.number], one for all

Dynamo reaches the item by the path ``caches[0]``, from which it makes its guards, the arguments of the graph and what it writes
back. Here the path is an `ItemSource`, which computes the place from ints that Python holds. The same is done for tuples, dicts
with ints as keys and `ModuleList`, for objects as items, and for ints that are arguments.

An int is a constant until it is used as a place: then Dynamo traces the frame again, with a symbol for the int. An item that is
a number or a text becomes a constant, with a guard on its value; an int at a place where another one was seen before becomes a
symbol. Of a list, tuple or dict of which nothing else is asked, no length is guarded: a table of pages may grow.
"""

from __future__ import annotations

import collections
from typing import Any

import sympy
import torch
from torch import nn

from fxpass.graph.numbers import hint, to_expr
from fxpass.torch_internals.dynamo.guards.frame_values import NOTHING, value_at
from fxpass.torch_internals.dynamo.guards.sources import NUMBERS_OF_TENSORS, ItemSource
from fxpass.torch_internals.dynamo.names import (
    ConstantVariable,
    FrameStateSizeEntry,
    GuardBuilder,
    SymNodeVariable,
    VariableBuilder,
    auto_dynamic,
    install_guard,
    process_automatic_dynamic,
)
from fxpass.torch_internals.dynamo.sizes import dynamism
from fxpass.torch_internals.symbols import DimDynamic, PythonPrinter, free_unbacked_symbols

from . import module_ints

_OF_ANY_LENGTH = (list, tuple, dict)
_CONTAINERS = (list, tuple, dict, collections.OrderedDict, nn.ModuleList)


def item_at(tx: Any, container: Any, place: Any) -> Any:
    """The item of ``container`` at ``place`` as a variable, if it is to be reached by ints that the frame is given; else None.

    Raises:
        RestartAnalysis: the place is an int that has been a constant so far; Dynamo traces the frame again.
    """
    place = place.realize()
    if not _is_not_looked_into(tx, container):
        container = container.realize()
    source = None if container.source is None else _source(tx, container.source, place)
    if source is None or not _is_as_it_came(tx, container):
        return None
    value = value_at(tx, source)
    if value is NOTHING:
        return None
    if isinstance(place, SymNodeVariable):
        install_guard(container.source.make_guard(GuardBuilder.TYPE_MATCH))
        is_literal = ConstantVariable.is_literal(value)
        return _literal(tx, source, value, container, place) if is_literal else VariableBuilder(tx, source)(value)
    if ConstantVariable.is_literal(value):
        return None
    dynamism.make_place(tx, place.source.name)
    return None


def _is_not_looked_into(tx: Any, container: Any) -> bool:
    """Whether ``container`` is an input of the frame of which nothing has been asked so far, and which may have any length."""
    if not hasattr(container, "is_realized") or container.is_realized() or container.source is None:
        return False
    value = value_at(tx, container.source)
    return type(value) in _OF_ANY_LENGTH and value not in tx.output.side_effects


def _is_as_it_came(tx: Any, container: Any) -> bool:
    """Whether ``container`` is one of the frame's inputs, in which nothing has been replaced so far."""
    looked_into = not hasattr(container, "is_realized") or container.is_realized()
    if looked_into and tx.output.side_effects.is_modified(container):
        return False
    return type(value_at(tx, container.source)) in _CONTAINERS


def _source(tx: Any, container: Any, place: Any) -> ItemSource | None:
    """The item of what is at ``container``; None if ``place`` is not made of ints that are the frame's inputs."""
    if isinstance(place, ConstantVariable):
        own = place.source if type(place.value) is int else None
        return ItemSource(container, "n[0]", (own,)) if own is not None and module_ints.is_single(tx, own) else None
    number = place.sym_num if isinstance(place, SymNodeVariable) else None
    if not isinstance(number, torch.SymInt) or free_unbacked_symbols(number):
        return None
    expr = to_expr(number)
    sources = {to_expr(t.fake): t.source for t in tx.output.tracked_fakes if isinstance(t.fake, torch.SymInt)}
    symbols = sorted(expr.free_symbols, key=str)
    numbers = [sources.get(symbol) for symbol in symbols]
    if any(source is None or isinstance(source, NUMBERS_OF_TENSORS) for source in numbers):
        return None
    text = PythonPrinter().doprint(expr.xreplace({s: sympy.Symbol(f"n[{i}]") for i, s in enumerate(symbols)}))
    return ItemSource(container, text, tuple(numbers))


def _literal(tx: Any, source: ItemSource, value: Any, container: Any, place: Any) -> Any:
    """The variable of a literal: a symbol for an int, once the item at this very place has had another value, or a constant."""
    if type(value) is int:
        name = f"{container.source.name}[{hint(place.sym_num)}]"
        seen = process_automatic_dynamic(tx, name, FrameStateSizeEntry.make_scalar(value))
        if seen.scalar is auto_dynamic:
            return VariableBuilder(tx, source).wrap_symint(value, DimDynamic.DYNAMIC)
        dynamism.see_int(tx, source.name, value)
    install_guard(source.make_guard(GuardBuilder.CONSTANT_MATCH))
    return ConstantVariable.create(value, source=source)
