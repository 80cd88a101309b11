"""What Dynamo and Inductor did while a block ran: graphs, breaks, recompilations, CUDA graphs that were skipped.

Dynamo counts graphs and breaks itself: ``unique_graphs`` is the number of graphs that a backend was given, and
``counters["graph_break"]`` holds a count for each reason. Recompilations are counted here. Dynamo announces each piece of
bytecode that it makes: the first one for a code object is a compilation, and each further one is a recompilation. The rest of a
function after a graph break has a code object of its own, which counts in the same way.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from types import CodeType
from typing import Any

import torch

from fxpass.execute.recording.graphs import own_recordings
from fxpass.torch_internals.dynamo.names import counters, register_bytecode_hook


@dataclasses.dataclass
class Counts:
    """What happened in a `counting` block; filled in when it ends, also by an exception.

    left: functions that Dynamo has given up on, which run in eager; what breaks a graph there does not count in breaks.
    skips: the message of each CUDA graph that was skipped; repeated where it was repeated.
    """

    graphs: int = 0
    breaks: int = 0
    left: int = 0
    recompiles: int = 0
    skips: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def counting() -> Iterator[Counts]:
    """Count from zero: everything that Dynamo has compiled and counted in this process is forgotten first."""
    torch.compiler.reset()
    counters.clear()
    counts = Counts()
    compiled: collections.Counter[CodeType] = collections.Counter()

    def see(code: CodeType, new_code: CodeType) -> None:
        compiled[code] += 1

    handle = register_bytecode_hook(see)
    try:
        with _skips_into(counts.skips):
            yield counts
    finally:
        handle.remove()
        counts.graphs = graphs()
        counts.breaks = sum(counters["graph_break"].values())
        counts.left = counters["frames"]["total"] - counters["frames"]["ok"]
        counts.recompiles = sum(n - 1 for n in compiled.values())


class _Collect(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "skipping cudagraphs" in message:
            self.messages.append(message)


@contextlib.contextmanager
def _skips_into(messages: list[str]) -> Iterator[None]:
    from fxpass.torch_internals.inductor.names import cudagraphs_log

    handler, level = _Collect(messages), cudagraphs_log.level
    cudagraphs_log.addHandler(handler)
    if not cudagraphs_log.isEnabledFor(logging.WARNING):
        cudagraphs_log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        cudagraphs_log.removeHandler(handler)
        cudagraphs_log.setLevel(level)


def graphs() -> int:
    """Graphs that backends have been given since the counters were cleared."""
    return counters["stats"]["unique_graphs"]


def skips() -> int:
    """CUDA graphs that Inductor has skipped since the counters were cleared."""
    return counters["inductor"]["cudagraph_skips"]


def recordings() -> int:
    """CUDA graphs recorded in this process that are still there, on all devices: ours, and Inductor's."""
    if not torch.cuda.is_available():
        return 0
    from fxpass.torch_internals.inductor.names import cudagraph_trees

    managers = [cudagraph_trees.get_manager(i, create_if_none_exists=False) for i in range(torch.cuda.device_count())]
    theirs = [_recorded(node) for m in managers if m is not None for nodes in m.roots.values() for node in nodes]
    return own_recordings() + sum(theirs)


def _recorded(node: Any) -> int:
    return 1 + sum(_recorded(child) for children in node.children.values() for child in children)


@dataclasses.dataclass
class Launches:
    """What was launched in a `launched` block: CUDA graphs, and single kernels beside them."""

    graphs: int = 0
    kernels: int = 0


@contextlib.contextmanager
def launched() -> Iterator[Launches]:
    """Count what is launched on GPUs; filled in when the block ends, and zero where torch sees no GPU."""
    counts, activities = Launches(), torch.profiler.supported_activities()
    with torch.profiler.profile(activities=activities) as profiled:
        yield counts
    for event in profiled.key_averages():
        if "Launch" in event.key and event.device_type == torch.autograd.DeviceType.CPU:
            counts.graphs += event.count if event.key == "cudaGraphLaunch" else 0
            counts.kernels += event.count if event.key != "cudaGraphLaunch" else 0
