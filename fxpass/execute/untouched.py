"""A graph in which nothing was rewritten is compiled as stock `torch.compile` would compile it."""

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
    """The function of the Dynamo graph ``gm``, compiled as a whole, or in pieces where its layers repeat.

    ``normal`` is its normal form. If that has growing sizes, or writes to memory that may move (a prefill), each call would
    make a new recording, or none. CUDA graphs are then turned off.
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
    """Whether one recording of ``normal`` would serve all calls. Where an input starts in its memory does not matter."""
    inputs, places = normal.graph.find_nodes(op="placeholder"), layouts(normal.graph)
    growing = any(is_dynamic(n, places) for n in inputs if n.users)
    return not growing and all(belongs_to_module(n) for n in written_inputs(normal))
