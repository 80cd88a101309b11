"""A graph is traced again without asking more about its sizes than the graph itself asks.

    k[:, :p + 1]        make_fx notes whether it is contiguous, under a guard that 8 != p + 1. The step that fills
                        the cache would then be one more graph. Here only sizes, strides and dtype are noted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from torch import fx

from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.proxies import make_fx

_retracing: ContextVar[bool] = ContextVar("retracing", default=False)


def install() -> None:
    """Install the hook, which acts in `retrace` alone."""
    patch("torch.fx.experimental.proxy_tensor._extract_tensor_metadata", _noted)


def retrace(run: Callable[..., Any], inputs: Sequence[Any], pre_dispatch: bool = False) -> fx.GraphModule:
    """The graph of ``run(*inputs)``, as `make_fx` traces it. With ``pre_dispatch`` it is traced before autograd, and composite
    ops stay whole."""
    with _quietly():
        return make_fx(run, pre_dispatch=pre_dispatch, tracing_mode="real")(*inputs)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    token = _retracing.set(True)
    try:
        yield
    finally:
        _retracing.reset(token)


def _noted(stock: Callable[..., Any], result: Any, include_contiguity: bool = True) -> Any:
    return stock(result, include_contiguity and not _retracing.get())
