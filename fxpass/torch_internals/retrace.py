"""A graph is traced again without asking more about its sizes than it asks itself.

    k[:, :p + 1]        make_fx: notes whether it is contiguous, under a guard that 8 != p + 1, so that the step that fills the
                        cache is one more graph
                        here: sizes, strides and dtype are noted
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
    """The graph of ``run(*inputs)``, as `make_fx` traces it; ``pre_dispatch``, before autograd and with composite ops whole."""
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
