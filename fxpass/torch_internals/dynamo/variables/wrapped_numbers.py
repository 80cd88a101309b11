"""How Dynamo wraps the numbers that a frame is given: the hooks of its variable builder.

    wrap_literal      an int of a module that has moved is a SymInt, and no constant
    wrap_symint       a position is not negative, and not large; zero is a constant
    wrap_symfloat     a float is a constant while it does not change

Each is given the stock function, and acts where ``is_ours`` holds of the backend that the frame is compiled for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fxpass.torch_internals.dynamo.frames.history import history_of, may_fix
from fxpass.torch_internals.dynamo.guards.sources import NUMBERS_OF_TENSORS
from fxpass.torch_internals.dynamo.names import (
    ConstantVariable,
    FrameStateSizeEntry,
    GuardBuilder,
    is_constant_source,
    process_automatic_dynamic,
)
from fxpass.torch_internals.dynamo.sizes import dynamism
from fxpass.torch_internals.symbols import DimDynamic

from . import module_ints
from .entry_variables import guard_range

MAX_FLOATS = 3
"""A float of a module is a constant for so many values, in graphs of their own; any other float is one for its first value."""


def wrap_literal(is_ours: Callable[..., bool], stock: Any, self: Any, value: Any) -> Any:
    if type(value) is int and is_ours(self.tx.output.compiler_fn) and module_ints.has_moved(self.tx, self.source, value):
        return self.wrap_symint(value)
    return stock(self, value)


def wrap_symint(is_ours: Callable[..., bool], stock: Any, self: Any, value: int, *args: Any, **kwargs: Any) -> Any:
    """Guard a number that is not negative to stay so: ``max(0, 8 * s0)`` is then known to be ``8 * s0``. It is
    also guarded to stay below its `ceiling`, so that what is computed from it does not overflow.

    Zero is a guarded constant, as in `guarded_numbers`, so that an empty cache has a graph of its own, also under
    ``dynamic=True``.
    """
    if not is_ours(self.tx.output.compiler_fn):
        return stock(self, value, *args, **kwargs)
    dynamism.see_int(self.tx, self.source.name, value)
    is_place = self.source.name in history_of(self.tx.output.root_tx.f_code).places
    if is_place and not args and not kwargs:
        args = (DimDynamic.DYNAMIC,)
    ours = is_place or isinstance(self.source, NUMBERS_OF_TENSORS)  # it has been decided
    made = self.name in self.tx.output.unspec_variable_map or is_constant_source(self.source)
    if value == 0 and not ours and not made:
        process_automatic_dynamic(self.tx, self.source.name, FrameStateSizeEntry.make_scalar(value))
        self.install_guards(GuardBuilder.CONSTANT_MATCH)
        return ConstantVariable.create(value, source=self.source)
    variable = stock(self, value, *args, **kwargs)
    if variable.is_python_constant() and variable.source is None:
        return ConstantVariable.create(value, source=self.source)
    if not variable.is_python_constant():
        guard_range(variable.sym_num, value)
    return variable


def wrap_symfloat(is_ours: Callable[..., bool], stock: Any, self: Any, value: float) -> Any:
    """Make a float that does not change a guarded constant, also under ``dynamic=True``, and if it differs between models."""
    known = self.name in self.tx.output.unspec_variable_map or is_constant_source(self.source)
    if not is_ours(self.tx.output.compiler_fn) or known:
        return stock(self, value)
    most = MAX_FLOATS if self.source.guard_source.is_unspecialized_nn_module() else 1
    if not may_fix(self.tx.output.root_tx.f_code, self.source.name, value, most):
        return stock(self, value)
    process_automatic_dynamic(self.tx, self.source.name, FrameStateSizeEntry.make_scalar(value))
    self.install_guards(GuardBuilder.CONSTANT_MATCH)
    return ConstantVariable.create(value, source=self.source)
