"""Where kvfix declines, stock Inductor compiles a graph. If that is not to be had either, the graph runs as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from fxpass.torch_internals.contracts import Feature, internal
from fxpass.torch_internals.features import holds


def compile_stock(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
    """``gm``, from Dynamo, as ``torch.compile(backend="inductor")`` compiles it."""
    if not holds(Feature.FALLBACK):
        return gm.forward
    return internal("torch._dynamo.lookup_backend")("inductor")(gm, list(example_inputs))
