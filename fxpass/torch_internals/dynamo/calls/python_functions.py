"""Functions of Python that take a number are given the number that an index tensor holds.

    for j in range(idx[0]):         stock: graph break      kvfix: range(s0)
    x * math.sqrt(idx[0])           stock: graph break      kvfix: a number computed from s0
    not_(idx[0])                    the same                kvfix: a guard on its truth
    int(lens.float().mean())        the same                kvfix: a number, since no float is an input of the graph
    page, row = divmod(p, 16)       stock: graph break      kvfix: p // 16 and p % 16
    1 << (p - 1).bit_length()       stock: a constant, a graph for each p       kvfix: one for each number of bits
    torch.as_tensor(p)              stock: a constant       kvfix: as ``torch.tensor(p)``
    caches[self.number], len(tokens)                        kvfix: see `list_items` and `list_lengths`
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch

from fxpass.graph.numbers import guarded, hint
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import (
    BuiltinVariable,
    ConstantVariable,
    ListVariable,
    SymNodeVariable,
    TensorVariable,
    TupleVariable,
)
from fxpass.torch_internals.dynamo.variables.list_items import item_at
from fxpass.torch_internals.dynamo.variables.list_lengths import length_of
from fxpass.torch_internals.dynamo.variables.numbers import formed, number_or_itself
from fxpass.torch_internals.dynamo.variables.realized import realized
from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.symbols import free_unbacked_symbols

from .identity import among

_SYMBOLIC = "sqrt floor ceil sin cos tan sinh cosh tanh asin acos atan log2"
_TAKERS = [range, operator.not_, *(getattr(math, name) for name in _SYMBOLIC.split())]
"""Functions whose results Dynamo makes symbolic numbers, or guards on. At any other function of `math` the graph breaks, since
a number would be a constant there, and each of its values would have a graph."""
_AS_TENSOR = [torch.as_tensor]
"""Functions that make the same of numbers as `torch.tensor`, and in which a number would be a constant."""


def install() -> None:
    """Install the hooks, which act while a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.BuiltinVariable.call_function", _call_builtin)
    patch("torch._dynamo.variables.torch.TorchInGraphFunctionVariable.call_function", _call_torchs)
    patch("torch._dynamo.variables.SymNodeVariable.call_method", _call_method)


def _call_builtin(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    if not kwargs and current_compilation() is not None:
        taken = _divided(tx, args) if self.fn is divmod else _of_container(tx, self.fn, args)
        if taken is not None:
            return taken
    rounded = _rounded(tx, args[0]) if self.fn is int and len(args) == 1 and not kwargs else None
    return stock(self, tx, _numbers(tx, self.fn, args), kwargs) if rounded is None else rounded


def _divided(tx: Any, args: Any) -> Any:
    """The quotient and the remainder of two numbers of which one moves; else None."""
    numbers = [*map(realized, args)]
    if not any(isinstance(n, SymNodeVariable) for n in numbers):
        return None
    return TupleVariable([BuiltinVariable(fn).call_function(tx, numbers, {}) for fn in (operator.floordiv, operator.mod)])


def _of_container(tx: Any, fn: Any, args: Any) -> Any:
    """The item, or the length, of a list, if stock Dynamo would make something else of it; else None."""
    if fn is operator.getitem and len(args) == 2:
        return item_at(tx, *args)
    return length_of(tx, args[0]) if fn is len and len(args) == 1 else None


def _call_torchs(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    if among(self.value, _AS_TENSOR) and current_compilation() is not None and args and _of_numbers(args[0]):
        return type(self)(torch.tensor).call_function(tx, args, kwargs)
    return stock(self, tx, _numbers(tx, self.value, args), kwargs)


def _call_method(stock: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
    number = self.sym_num
    if name == "bit_length" and current_compilation() is not None and isinstance(number, torch.SymInt):
        if not free_unbacked_symbols(number):
            return ConstantVariable.create(_bit_length(number))
    return stock(self, tx, name, args, kwargs)


def _bit_length(number: torch.SymInt) -> int:
    """How many bits ``number`` has, under a guard that it has as many."""
    size = number if number >= 0 else -number
    bits = hint(size).bit_length()
    for bound in (size < 1 << bits, size >= 1 << bits >> 1):
        guarded(bound)
    return bits


def _of_numbers(data: Any) -> bool:
    """Whether ``data`` is a number that moves, or a list in which there are some, and no tensor."""
    data = realized(data)
    if isinstance(data, (ListVariable, TupleVariable)):
        return any(map(_of_numbers, data.items)) and not any(isinstance(realized(i), TensorVariable) for i in data.items)
    return isinstance(data, SymNodeVariable)


def _numbers(tx: Any, taker: Any, args: Any) -> Any:
    """``args`` of the function ``taker``, with numbers in the place of the tensors that hold them."""
    if current_compilation() is None or not among(taker, _TAKERS):
        return args
    return [number_or_itself(tx, arg) for arg in args]


def _rounded(tx: Any, arg: Any) -> Any:
    """The ``int`` of ``arg``, if this is a tensor of floats that numbers of index tensors make; else None."""
    tensor = None if current_compilation() is None else _tensor(arg)
    if tensor is None or tensor.dtype is None or not tensor.dtype.is_floating_point:
        return None
    return formed(tx, tensor.as_proxy().node, form="int({})")


def _tensor(arg: Any) -> Any:
    tensor = realized(arg)
    return tensor if isinstance(tensor, TensorVariable) and not isinstance(tensor, SymNodeVariable) else None
