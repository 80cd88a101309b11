"""torch's minifier, ``TORCHDYNAMO_REPRO_AFTER=dynamo``, runs what a backend has returned while the graph is compiled.

    out = compiled(s0, cache, x)                  s0 is a SymInt, on which the call would make guards
    compiled.named_parameters()                   a function has no such method, and would be taken for one that fails
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.dynamo.names import config

from .compilation import current_compilation

_NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def for_the_minifier(compiled: Callable[..., Any], gm: fx.GraphModule) -> Callable[..., Any]:
    """``compiled``, of the Dynamo graph ``gm``, as the minifier can run it; as it is where none is asked for.

    The script that looks for a smaller graph calls the backend itself, and Dynamo compiles nothing for kvfix then.
    """
    if config.repro_after != "dynamo" and current_compilation() is not None:
        return compiled

    def run(*args: Any) -> Any:
        return compiled(*(arg.node.hint if isinstance(arg, _NUMBERS) else arg for arg in args))

    run.named_parameters, run.named_buffers = gm.named_parameters, gm.named_buffers  # type: ignore[attr-defined]
    return run
