"""One launch of a Triton kernel, and the compilation of kernels while something else is being compiled.

Triton compiles a kernel when it is first launched, and so one kernel after the other. The kernels of a graph are known before
that. So threads compile them while Inductor lowers the rest of the graph. Triton's compiler mostly runs without Python's lock.

From Hopper on, a kernel may be started before the one that it follows is done (programmatic dependent launch):

    wake()    lets the next kernel start once all programs of this one have called it
    ...       what no kernel of the graph writes may be read, and anything be brought into the cache (`fetch`)
    wait()    returns when all preceding kernels are done; what they wrote can then be read

All kernels of a core call `wake` first, and `wait` before they read or write anything else. Since each kernel waits for the one
before it, the last one waits for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import triton
import triton.language as tl
from torch import fx
from triton.language.extra.cuda import gdc_launch_dependents as wake
from triton.language.extra.cuda import gdc_wait as wait

from fxpass.graph.numbers import hint

__all__ = ["Gpu", "Launch", "compiling_kernels", "fetch", "gpu", "is_recording", "wait", "wake"]


@triton.jit
def fetch(pointers):
    """Bring what lies behind ``pointers``, one in each line of memory, into the L2 cache: also what is yet to be written."""
    tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], tl.int32, False, 1)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What the kernels' shapes depend on: the number of ``processors``, the size of the L2 ``cache`` in bytes, and whether the
    GPU can start a kernel before the last one is done (``dependent``)."""

    processors: int
    cache: int
    dependent: bool

    @property
    def options(self) -> dict[str, Any]:
        """The constants and options of a launch on this GPU."""
        return {"DEPENDENT": True, "launch_pdl": True} if self.dependent else {"DEPENDENT": False}


@functools.cache
def gpu(device: torch.device) -> Gpu:
    """The properties of ``device``. A device that is no GPU, on which Triton's interpreter runs, counts as a small GPU."""
    if device.type != "cuda":
        return Gpu(processors=8, cache=2**20, dependent=False)
    found = torch.cuda.get_device_properties(device)
    return Gpu(found.multi_processor_count, found.L2_cache_size, found.major >= 9 and torch.version.hip is None)


def is_recording(device: torch.device) -> bool:
    """Whether launches on ``device`` go into a CUDA graph. Only kernels of that graph then precede them."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@dataclasses.dataclass
class Launch:
    """``kernel`` on a one-dimensional ``grid``, with its arguments, and its constants and options by name."""

    kernel: Any
    grid: int
    args: Sequence[Any]
    options: Mapping[str, Any]

    def run(self) -> None:
        """Launch it."""
        self.kernel[(self.grid,)](*self.args, **self.options)

    def compile(self) -> None:
        """Compile the kernel, and the host code that launches it, for arguments of these kinds. Pointers are taken to be
        aligned as an allocator aligns them."""
        with torch.cuda.device(self.device.index):
            compiled = self.kernel.warmup(*self.kinds(), grid=(self.grid,), **self.options)
            compiled.run  # noqa: B018  (a property that makes it)

    def kinds(self) -> list[Any]:
        """The arguments, with a dtype for each tensor and the current value of each symbol."""
        return [a.dtype if isinstance(a, torch.Tensor) else hint(a) for a in self.args]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(a.device for a in self.args if isinstance(a, torch.Tensor))


@contextlib.contextmanager
def compiling_kernels(gm: fx.GraphModule, launches: Mapping[Any, Callable[..., list[Launch]]]) -> Iterator[None]:
    """Compile the kernels that the ops of ``gm`` (static, propagated) will launch. They are compiled when the block ends.

    ``launches`` gives each `Launch` for an op's arguments, fake ones. A kernel that does not compile is left to its
    first launch, which says why.
    """
    wanted: dict[Any, Launch] = {}
    for node in gm.graph.nodes:
        if node.target in launches:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
            for launch in launches[node.target](*args, **kwargs):
                wanted[launch.kernel, str((launch.kinds(), launch.options))] = launch
                _use_inductors_cache(launch.device)
    with ThreadPoolExecutor() as pool:
        for launch in wanted.values():
            pool.submit(launch.compile)
        yield


def _use_inductors_cache(device: torch.device) -> None:
    """Let Triton keep kernels where Inductor keeps its own, even if Inductor has not compiled any in this process."""
    from fxpass.torch_internals.inductor.names import triton_cache_dir

    if "TRITON_CACHE_DIR" not in os.environ:
        os.environ["TRITON_CACHE_DIR"] = triton_cache_dir(device.index or 0)
