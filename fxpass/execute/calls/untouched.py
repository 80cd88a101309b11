"""A graph in which nothing was rewritten is compiled as stock `torch.compile` would compile it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.analysis.kinds import layouts
from fxpass.execute.compilation.compilers import as_dynamo_gave_it, in_pieces
from fxpass.execute.compilation.overwritten import overwritten, write_apart
from fxpass.execute.partition.repeats import piece_calls
from fxpass.execute.partition.split import is_dynamic
from fxpass.execute.recording.carry import asks_for_graphs
from fxpass.execute.recording.copied_out import CopiedOut
from fxpass.graph import aliases
from fxpass.graph.extract import duplicate
from fxpass.graph.inputs import belongs_to_module
from fxpass.options import Options
from fxpass.torch_internals.dynamo.sizes.dynamism import Restart

from .fallback import WithFallback


def untouched(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    normal: fx.GraphModule | None,
    settings: Options,
    instead: Callable[[], Callable[..., Any]],
    failed: Callable[[Exception], None],
) -> Callable[..., Any]:
    """The function of the Dynamo graph ``gm``, compiled as a whole, or in pieces where its layers repeat.

    ``normal`` is its normal form. If that has growing sizes, or writes to memory that may move (a prefill), each call would
    make a new recording, or none. CUDA graphs are then turned off, and so they are where autograd follows the graph. If the
    pieces do not compile, or fail when they first run, ``failed`` is told, and what ``instead`` makes runs.
    """
    patches, pieces = dict(settings.inductor), None
    differentiated = torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in example_inputs)
    if differentiated:
        patches["triton.cudagraphs"] = False
    if normal is not None and not _worth_recording(normal):
        patches["triton.cudagraphs"] = False
        try:
            pieces = _pieces(normal, settings, patches)
        except Restart:
            raise
        except Exception as error:
            failed(error)
    if pieces is None or normal is None:
        if normal is not None and settings.compiler == "inductor" and not differentiated:
            gm = _written_apart(gm, normal, failed)
        run = as_dynamo_gave_it(settings.compiler, patches)(gm, example_inputs)
        return CopiedOut(run) if settings.compiler == "inductor" and asks_for_graphs(patches, example_inputs) else run
    return WithFallback(pieces, [], aliases.written_places(normal.graph), instead, failed)


def _written_apart(gm: fx.GraphModule, normal: fx.GraphModule, failed: Callable[[Exception], None]) -> fx.GraphModule:
    """The graph to compile for ``gm``: itself, or its normal form where Inductor would mistake its writes (`write_apart`)."""
    try:
        if not overwritten(normal.graph):
            return gm
        made = duplicate(normal)
        write_apart(made)
        return made
    except Exception as error:
        failed(error)
        return gm


def _pieces(normal: fx.GraphModule, settings: Options, patches: dict[str, Any]) -> Callable[..., Any] | None:
    """``normal`` compiled in pieces; None where there are none to share."""
    if settings.compiler != "inductor" or any(is_dynamic(n, set()) for n in normal.graph.nodes):
        return None
    whole = duplicate(normal)
    calls = piece_calls(whole)
    return in_pieces(whole, calls, patches) if calls else None


def _worth_recording(normal: fx.GraphModule) -> bool:
    """Whether one recording of ``normal`` would serve all calls. Where an input starts in its memory does not matter."""
    inputs, places = normal.graph.find_nodes(op="placeholder"), layouts(normal.graph)
    growing = any(is_dynamic(n, places) for n in inputs if n.users)
    return not growing and all(belongs_to_module(n) for n in aliases.written_inputs(normal.graph))
