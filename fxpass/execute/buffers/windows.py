"""How many rows of its caches a call reads: the sizes of windows (`rewriting.buffers.windows`).

    lengths of the reads    1 .. 16     17 .. 32    ...    513 .. 544    545 .. 576    ...    4097 .. 4352
    rows of the window      16          32                 544           576                  4352

All of these run the same code, in which the size is a symbol. A window has at most a sixteenth more rows than are read, or less
than 16 more; so a cache of n rows has some 16 * log2(n) windows, and none is larger than the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from fxpass import reasons
from fxpass.graph.normal_form import NormalForm, mode_of
from fxpass.graph.numbers import hint, symbols, to_expr
from fxpass.graph.source_lines import source_of, with_line
from fxpass.graph.unfit import Unfit
from fxpass.report import Report, store
from fxpass.report.symbols import renamed
from fxpass.rewriting import Rewritten, Windows
from fxpass.rewriting.buffers.windows import LEAST
from fxpass.rewriting.decisions import Decision
from fxpass.rewriting.outside.around import Window
from fxpass.rewriting.outside.formulas import function_of
from fxpass.torch_internals.checkpoints import checkpoint
from fxpass.torch_internals.dynamo.sizes.dynamism import Restart
from fxpass.torch_internals.dynamo.sizes.windows import WindowSizes

_AT_ANY_SIZE = {one.id for one in (reasons.NO_RULE, reasons.LEAVES, reasons.RETURNED_VIEW, reasons.STALE)}
"""The reasons that hold whether a window or all rows are read."""

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

    It is rewritten without windows where one of its sites is refused, for a reason that may not hold where all rows are read,
    or where what was asked about a window does not hold of each. The report names the reads of all rows, and why. On a GPU our
    own kernels read what is filled, and a recording has one size.
    """
    if any(isinstance(v, torch.Tensor) and v.device.type != "cpu" for v in inputs):
        return rewrite(form)
    env = mode_of(inputs).shape_env
    give_up = checkpoint(env)
    with WindowSizes(env, window_for) as sizes:
        windows = Windows(sizes.window)
        try:
            made = rewrite(form, windows=windows)
        except (Restart, Unfit):
            raise
        except Exception as error:
            if not windows.are_open:
                raise
            _logger.warning("kvfix: caches are read in full", exc_info=True)
            made, why = None, f"the rewrite failed with windows: {type(error).__name__}: {error}"
        else:
            why = _BEHIND
    refused = {site.id for site in report.sites if site.decision == "refused"}
    if made is not None and windows.are_open and not refused <= _AT_ANY_SIZE:
        made, why = None, "a slice of the graph is refused"
    elif made is not None and sizes.asked is not None:
        made, why = None, f"this does not hold of every window: {renamed(str(sizes.asked), report.names)}"
    if made is None:
        give_up()
        made = rewrite(form)
    _note_whole(made[1].decisions, why, report)
    return made


_BEHIND = "they lie behind a position, or only the graph finds out how many there are"


def _note_whole(decisions: Iterable[Decision], why: str, report: Report) -> None:
    """Note which reads take all rows of a long buffer."""
    moving = [d for d in decisions if d.taken is not None]
    whole = [d for d in moving if LEAST < hint(d.taken) == hint(d.base.shape[d.dim])]
    if whole:
        lines = ", ".join(dict.fromkeys(source_of(with_line(d.node)) for d in whole))
        store.note(report, reasons.ALL_ROWS.text(where=lines, why=why))


def window_sizes(nodes: Sequence[torch.fx.Node], windows: Sequence[Window]) -> dict[Any, list[Any]]:
    """For each of ``windows``, the symbol that is its size, with the sizes of the axes that it is a window of, as expressions.
    The first of ``nodes``, which are inputs of a graph, have the sizes of the windows."""
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
        """The tensors for a call with ``args``: as large as its reads if ``in_part``, or else as the caches."""
        sizes = [min(*most, window_for(length) if in_part else most[0]) for length, most in self._measured(args)]
        if sizes != self._sizes:
            with torch.inference_mode(False):
                self._rows = [torch.empty(size, dtype=torch.bool) for size in sizes]
            self._sizes = sizes
        return self._rows
