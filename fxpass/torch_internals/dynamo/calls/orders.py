"""A few numbers of which one moves are put in order, under guards on where it stands among them.

    sorted([p, 7, 3])       stock: graph break      kvfix: [3, p, 7] for p from 3 to 7, a graph for each place of p

Where numbers move by themselves, the rows of a batch, each of their orders would have a graph: there is a break, as in stock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fxpass.graph.numbers import is_nan, symbols
from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import ConstantVariable, SymNodeVariable
from fxpass.torch_internals.dynamo.variables.entry_variables import plain_number
from fxpass.torch_internals.dynamo.variables.realized import realized
from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.symbols import free_unbacked_symbols

_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)
MAX_NUMBERS = 4
"""A longer list may have more graphs than a break makes."""


def install() -> None:
    """Install the hook, which acts while a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.ListVariable.call_method", _call_method)


def _call_method(stock: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
    acts = name == "sort" and not args and not kwargs.keys() - {"reverse"} and self.is_mutable()
    numbers = _numbers(self.items) if acts and current_compilation() is not None else None
    if numbers is None:
        return stock(self, tx, name, args, kwargs)
    reverse = kwargs["reverse"].as_python_constant() if kwargs else False
    places = sorted(range(len(numbers)), key=numbers.__getitem__, reverse=reverse)  # guards
    tx.output.side_effects.mutation(self)
    self.items[:] = [self.items[place] for place in places]
    return ConstantVariable.create(None)


def _numbers(items: Sequence[Any]) -> list[Any] | None:
    """The numbers that ``items`` are, if these are a few numbers and one symbol stands in them; else None."""
    if len(items) > MAX_NUMBERS:
        return None
    variables = [*map(realized, items)]
    if not all(isinstance(v, SymNodeVariable) or v.is_python_constant() for v in variables):
        return None
    numbers = [plain_number(v) for v in variables]
    if not all(isinstance(n, _NUMBERS) and not is_nan(n) and not free_unbacked_symbols(n) for n in numbers):
        return None
    return numbers if len({s for n in numbers for s in symbols(n)}) == 1 else None
