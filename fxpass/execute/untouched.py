"""A graph in which nothing was rewritten, compiled as stock `torch.compile` would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from fxpass.analysis.kinds import layouts
from fxpass.graph.extract import duplicate
from fxpass.options import Options

from .compilers import as_dynamo_gave_it, in_pieces
from .partition.repeats import piece_calls
from .partition.split import is_dynamic
from .recording.addresses import belongs_to_module, written_inputs


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
            whole = duplicate(normal)
            calls = piece_calls(whole)
            if calls:
                return in_pieces(whole, calls, patches)
    return as_dynamo_gave_it(settings.compiler, patches)(gm, example_inputs)


def _worth_recording(normal: fx.GraphModule) -> bool:
    """Whether stock would make one recording of ``normal``: where an input starts in its memory is no reason against it."""
    inputs, places = normal.graph.find_nodes(op="placeholder"), layouts(normal.graph)
    growing = any(is_dynamic(n, places) for n in inputs if n.users)
    return not growing and all(belongs_to_module(n) for n in written_inputs(normal))
