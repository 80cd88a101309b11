"""Whether two index tensors are equal is a number that their elements make, like any other.

    if torch.equal(at, other):          stock: a graph break
                                        kvfix: a guard on (at == other).all()
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from fxpass.index_tensors.small_tensors import is_small_int, shape_of
from fxpass.torch_internals.dynamo.names import TensorVariable
from fxpass.torch_internals.patches import patch

from . import number_variables
from .compilation import current_compilation


def install(is_ours: Callable[[Any], bool]) -> None:
    """Install the hooks; ``is_ours(compiler_fn)`` says whether a frame's backend is kvfix."""
    name = "torch._dynamo.variables.torch.TorchInGraphFunctionVariable.call_function"
    patch(name, functools.partial(_call_function, is_ours))
    patch("torch._dynamo.variables.TensorVariable.call_method", functools.partial(_call_method, is_ours))


def _call_function(is_ours: Callable[[Any], bool], stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    if self.value is torch.equal and len(args) == 2 and not kwargs and is_ours(tx.output.compiler_fn):
        found = _compared(tx, *args)
        if found is not None:
            return found
    return stock(self, tx, args, kwargs)


def _call_method(
    is_ours: Callable[[Any], bool], stock: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any
) -> Any:
    if name == "equal" and len(args) == 1 and not kwargs and is_ours(tx.output.compiler_fn):
        found = _compared(tx, self, args[0])
        if found is not None:
            return found
    return stock(self, tx, name, args, kwargs)


def _compared(tx: Any, *pair: Any) -> Any:
    """Whether the two tensors are equal, as a constant, on which a guard is installed; None where it is not known."""
    if current_compilation() is None:
        return None
    a, b = (one.realize() if hasattr(one, "realize") else one for one in pair)
    if not isinstance(a, TensorVariable) or not isinstance(b, TensorVariable):
        return None
    nodes = [one.as_proxy().node for one in (a, b)]
    if not all(map(is_small_int, nodes)) or a.dtype != b.dtype or shape_of(nodes[0]) != shape_of(nodes[1]):
        return None
    same = a.call_method(tx, "eq", [b], {}).call_method(tx, "all", [], {})
    value = number_variables.number_in(tx, same.as_proxy().node)
    return None if value is None else number_variables.decided(tx, value)
