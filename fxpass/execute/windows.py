"""How many rows of its caches a call reads: the sizes of windows (`rewriting.windows`).

    lengths of the reads    1 .. 16     17 .. 32    ...    513 .. 544    545 .. 576    ...    4097 .. 4352
    rows of the window      16          32                 544           576                  4352

All of these run the same code, in which the size is a symbol. A window has at most a sixteenth more rows than are read, or less
than 16 more; so a cache of n rows has some 16 * log2(n) windows, and none is larger than the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fxpass.graph.normal_form import NormalForm, mode_of
from fxpass.graph.numbers import symbols, to_expr
from fxpass.graph.unfit import Unfit
from fxpass.report import Report
from fxpass.rewriting import Rewritten, Windows
from fxpass.rewriting.around import Window
from fxpass.rewriting.formulas import function_of
from fxpass.torch_internals.dynamo.dynamism import Restart
from fxpass.torch_internals.dynamo.window_sizes import WindowSizes

_logger = logging.getLogger(__name__)

STEP = 16
"""The number of rows of all small windows is a multiple of this."""


def window_for(length: int) -> int:
    """The rows of a window for ``length`` rows."""
    step = max(STEP, 1 << length.bit_length() >> 5)
    return -(-length // step) * step or step


def through_windows(
    rewrite: Callable[..., tuple[torch.fx.GraphModule, Rewritten]], form: NormalForm, inputs: Sequence[Any], report: Report
) -> tuple[torch.fx.GraphModule, Rewritten]:
    """What ``rewrite(form)`` gives, with windows for the caches of a graph that runs on a CPU.

    It is rewritten without windows where one of its sites is refused, or where what was asked about a window does not hold of
    each. On a GPU our own kernels read what is filled, and a recording has one size.
    """
    if any(isinstance(v, torch.Tensor) and v.device.type != "cpu" for v in inputs):
        return rewrite(form)
    with WindowSizes(mode_of(inputs).shape_env, window_for) as sizes:
        windows = Windows(sizes.window)
        try:
            made = rewrite(form.copy(), windows=windows)
        except (Restart, Unfit):
            raise
        except Exception:
            if not windows.are_open:
                raise
            _logger.warning("kvfix: caches are read in full", exc_info=True)
            made = None
    is_whole = made is not None and not report.refused and sizes.are_free
    return made if made is not None and (is_whole or not windows.are_open) else rewrite(form)


def window_sizes(nodes: Sequence[torch.fx.Node], windows: Sequence[Window]) -> dict[Any, list[Any]]:
    """The symbols of the sizes of ``windows``, which the first of ``nodes``, inputs of a graph, have; each with the sizes of
    the axes that it is of, as expressions."""
    found: dict[Any, list[Any]] = {}
    for window, node in zip(windows, nodes, strict=False):
        inputs = node.graph.find_nodes(op="placeholder")
        axes = [s if isinstance(s, int) else to_expr(inputs[s.place].meta["val"].shape[s.dim]) for s in window.sizes]
        found |= {symbol: axes for symbol in symbols(node.meta["val"])}
    return found


class WindowRows:
    """Tensors whose sizes are those of ``windows``, for a call. Nothing reads what they hold."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._measured = function_of(*((one.length, one.sizes) for one in windows))
        self._sizes: list[int] = []
        self._rows: list[torch.Tensor] = []

    def __call__(self, args: Sequence[Any], in_part: bool = True) -> list[torch.Tensor]:
        """Those for a call with ``args``, as large as its reads, ``in_part``, or as the caches."""
        sizes = [min(*most, window_for(length) if in_part else most[0]) for length, most in self._measured(args)]
        if sizes != self._sizes:
            with torch.inference_mode(False):
                self._rows = [torch.empty(size, dtype=torch.bool) for size in sizes]
            self._sizes = sizes
        return self._rows
