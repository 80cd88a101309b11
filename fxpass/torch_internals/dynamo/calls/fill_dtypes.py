"""What is filled with a tensor's number has the dtype that eager gives it.

    torch.full((n,), idx[0])      eager: int64, as of the Python int that the number is
                                  stock: torch.empty((n,)).fill_(idx[0]), which is float32
                                  kvfix: torch.full((n,), idx[0], dtype=torch.int64)

In stock the graph has mostly been broken before this line, and eager runs it.
"""

from __future__ import annotations

from typing import Any

import torch

from fxpass.torch_internals.dynamo.frames.compilation import current_compilation
from fxpass.torch_internals.dynamo.names import ConstantVariable, TensorVariable
from fxpass.torch_internals.dynamo.variables.realized import realized
from fxpass.torch_internals.patches import patch


def install() -> None:
    """Install the hook, which acts while a frame is compiled for kvfix."""
    patch("torch._dynamo.variables.torch.TorchInGraphFunctionVariable.call_function", _call_function)


def _call_function(stock: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    if self.value is torch.full and "dtype" not in kwargs and current_compilation() is not None:
        fill = kwargs.get("fill_value", args[1] if len(args) > 1 else None)
        dtype = _dtype(realized(fill))
        if dtype is not None:
            kwargs = {**kwargs, "dtype": ConstantVariable.create(dtype)}
    return stock(self, tx, args, kwargs)


def _dtype(fill: Any) -> torch.dtype | None:
    """The dtype of what eager fills with ``fill``; None where that is the default dtype, or no tensor is given."""
    if not isinstance(fill, TensorVariable) or fill.dtype is None or fill.dtype.is_floating_point or fill.dtype.is_complex:
        return None
    return torch.bool if fill.dtype is torch.bool else torch.int64
