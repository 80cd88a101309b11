"""The sizes and strides that are symbols of a graph are read from its inputs without leaving Dynamo's frame evaluation.

    call_size(past, 2)        stock: frame evaluation is switched off and on again around ``past.size(2)``, 2.5 us
                              kvfix: ``past.size(2)``, 0.4 us

Dynamo switches it off so that it traces no ``__torch_function__`` that the question calls. A plain tensor calls none, unless a
function mode is on. A decode step with growing caches asks four such questions for each of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from fxpass.torch_internals.dynamo.names import is_torch_function_mode_enabled, skip_code
from fxpass.torch_internals.patches import replace

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def install() -> None:
    """Replace Dynamo's functions that ask for a size and for a stride, in whatever it compiles."""
    replace("torch._dynamo.utils.call_size", functools.partial(_asked, torch.Tensor.size))
    replace("torch._dynamo.utils.call_stride", functools.partial(_asked, torch.Tensor.stride))


def _asked(method: Callable[[Any, int], int], stock: Callable[[Any, int], int]) -> Callable[[Any, int], int]:
    """A function that asks by ``method`` where nothing can be traced by that, and by ``stock`` elsewhere."""

    def asked(x: Any, i: int) -> int:
        return method(x, i) if type(x) in _PLAIN and not is_torch_function_mode_enabled() else stock(x, i)

    skip_code(asked.__code__)
    return functools.update_wrapper(asked, stock)
