"""From a rewritten graph to a callable: propagate, cut, compile the parts, run them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from fxpass.graph.propagate import propagate, snapshot
from fxpass.kernels.select import use_kernels
from fxpass.options import Options

from .assemble import Plan, assemble
from .compilers import as_dynamo_gave_it, get_ready, in_pieces
from .partition.repeats import cut
from .partition.split import is_dynamic, split
from .recording.addresses import belongs_to_module, written_inputs
from .recording.carry import carry_indices, is_recorded
from .serialized import save

__all__ = [
    "Plan",
    "assemble",
    "carry_indices",
    "get_ready",
    "is_recorded",
    "propagate",
    "save",
    "snapshot",
    "split",
    "untouched",
    "use_kernels",
]


def untouched(
    gm: fx.GraphModule, example_inputs: Sequence[Any], normal: fx.GraphModule | None, settings: Options
) -> Callable[..., Any]:
    """``gm`` as Dynamo gave it, as `torch.compile` would compile it, or in pieces where its layers repeat.

    Where ``normal``, its normal form, shows growing sizes or writes to memory that may move (a prefill), a recording
    would be skipped or made anew for each call: CUDA graphs are then left off.
    """
    patches = dict(settings.inductor)
    if normal is not None and not _worth_recording(normal):
        patches["triton.cudagraphs"] = False
        if settings.compiler == "inductor" and not any(is_dynamic(n, set()) for n in normal.graph.nodes):
            calls = cut(normal)
            if calls:
                return in_pieces(normal, calls, patches)
    return as_dynamo_gave_it(settings.compiler, patches)(gm, example_inputs)


def _worth_recording(normal: fx.GraphModule) -> bool:
    inputs = [n for n in normal.graph.nodes if n.op == "placeholder"]
    growing = any(is_dynamic(n, set()) for n in inputs)
    return not growing and all(belongs_to_module(n) for n in written_inputs(normal))
