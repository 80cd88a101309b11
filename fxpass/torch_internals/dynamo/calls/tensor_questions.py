"""Questions about whole index tensors that PyTorch answers with a Python bool.

    if torch.equal(lens, seen):         stock: graph break      kvfix: guards on the numbers, True
    if flag.is_nonzero():               the same
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import ConstantVariable, ListVariable, TensorVariable
from fxpass.torch_internals.dynamo.sizes.fixed import has_symbolic_size
from fxpass.torch_internals.dynamo.variables.entry_variables import plain_number
from fxpass.torch_internals.dynamo.variables.numbers import branch_outcome, formed, number_in, numbers_in
from fxpass.torch_internals.dynamo.variables.realized import realized
from fxpass.torch_internals.patches import patch

_QUESTIONS = {torch.equal: "equal", torch.is_nonzero: "is_nonzero"}


def install() -> None:
    """Install the hooks, which act while a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.torch.TorchInGraphFunctionVariable.call_function", _call_function)
    patch("torch._dynamo.variables.TensorVariable.call_method", _call_method)


def _call_function(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    answer = None if kwargs else _answer(tx, _QUESTIONS.get(self.value), args)
    return stock(self, tx, args, kwargs) if answer is None else answer


def _call_method(stock: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
    answer = None if kwargs or name not in _QUESTIONS.values() else _answer(tx, name, [self, *args])
    return stock(self, tx, name, args, kwargs) if answer is None else answer


def _answer(tx: Any, question: str | None, operands: Sequence[Any]) -> Any:
    """The answer as a constant, which is guarded; None where the table does not know what the tensors hold."""
    if question is None or current_compilation() is None:
        return None
    tensors = [*map(realized, operands)]
    if not all(isinstance(t, TensorVariable) for t in tensors) or len({t.dtype for t in tensors}) != 1:
        return None
    if question == "is_nonzero":
        number = number_in(tx, tensors[0].as_proxy().node)
        return None if number is None else branch_outcome(tx, number)
    nodes = [t.as_proxy().node for t in tensors]
    if len(nodes) == 2 and any(map(has_symbolic_size, nodes)):
        return formed(tx, *nodes, form="torch.equal({}, {})")
    held = [numbers_in(tx, node) for node in nodes]
    if len(held) != 2 or None in held:
        return None
    return ConstantVariable.create(_same(*held))


def _same(one: Any, other: Any) -> bool:
    """Whether the numbers of two tensors, in nested lists, and the lengths of these are the same."""
    if not isinstance(one, ListVariable):
        return not isinstance(other, ListVariable) and bool(_outcome(one) == _outcome(other))
    if not isinstance(other, ListVariable) or len(one.items) != len(other.items):
        return False
    return all(_same(a, b) for a, b in zip(one.items, other.items, strict=True))


def _outcome(number: Any) -> Any:
    """The constant or SymInt that ``number`` is. For a truth value that moves it is the truth value of now, under a guard."""
    value = plain_number(number)
    return bool(value) if isinstance(value, torch.SymBool) else value
