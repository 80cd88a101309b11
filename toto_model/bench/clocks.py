"""Clocks for the calls of a model: what a call takes where it stands, on the host, and on the device alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

SLEEP = 10_000_000
"""Cycles for which the device is kept busy before a call whose device time is wanted: some 5 ms, longer than the host
needs to issue a decode step."""

Forward = Callable[..., Any]


class FirstLaunch:
    """When this process launches a CUDA graph that has been recorded since `watch`."""

    def __init__(self) -> None:
        self._first: float | None = None

    def watch(self) -> FirstLaunch:
        """See each launch from now on."""
        launch = torch.cuda.CUDAGraph.replay

        def replay(graph: torch.cuda.CUDAGraph) -> None:
            self._first = self._first or time.perf_counter()
            launch(graph)

        torch.cuda.CUDAGraph.replay = replay  # type: ignore[method-assign]
        return self

    def start(self) -> float:
        """The time now. The next launch is the first one."""
        self._first = None
        return time.perf_counter()

    def since(self, start: float) -> list[float]:
        """Milliseconds from ``start`` to the first launch, if there was one."""
        return [] if self._first is None else [1e3 * (self._first - start)]


class Plain:
    """``forward`` with its host time, and on a GPU the time between events before and after it, for each call; of those that
    launch a CUDA graph, ``launch_ms`` is the host's time until then.

    With ``ahead`` the device sleeps before each call, so that the host is ahead of it: the time between the events is then
    that of the device alone (unless the call waits for the device).
    """

    def __init__(self, forward: Forward, gpu: bool, ahead: bool = False, launches: FirstLaunch | None = None) -> None:
        self.forward, self.gpu, self.ahead = forward, gpu, ahead
        self.host: list[float] = []
        self.launch_ms: list[float] = []
        self._launches = launches or FirstLaunch()
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.gpu:
            start = time.perf_counter()
            out = self.forward(*args, **kwargs)
            self.host.append(time.perf_counter() - start)
            return out
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self.ahead:
            torch.cuda.synchronize()
            torch.cuda._sleep(SLEEP)
        start = self._launches.start()
        before.record()
        out = self.forward(*args, **kwargs)
        after.record()
        self.host.append(time.perf_counter() - start)
        self.launch_ms += self._launches.since(start)
        self._events.append((before, after))
        return out

    @property
    def host_ms(self) -> list[float]:
        return [1e3 * s for s in self.host]

    @property
    def ms(self) -> list[float]:
        """Between the events; on a CPU, the host's."""
        if not self.gpu:
            return self.host_ms
        torch.cuda.synchronize()
        return [before.elapsed_time(after) for before, after in self._events]


class Waiting:
    """``forward`` between two waits for the device; ``seconds`` is the time spent within."""

    def __init__(self, forward: Forward) -> None:
        self.forward = forward
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        torch.cuda.synchronize()
        start = time.perf_counter()
        out = self.forward(*args, **kwargs)
        torch.cuda.synchronize()
        self.seconds += time.perf_counter() - start
        return out


class Profiled:
    """``forward``, profiled in its call number ``which``: what was launched, copied and run on the device."""

    def __init__(self, forward: Forward, which: int) -> None:
        self.forward, self.which = forward, which
        self.calls = 0
        self.found: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls != self.which:
            return self.forward(*args, **kwargs)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            out = self.forward(*args, **kwargs)
            torch.cuda.synchronize()
        self.found = _summary(profiled.key_averages()) | _core(profiled.profiler.kineto_results.events())
        return out


def _core(events: Any) -> dict[str, Any]:
    """From the start of the first kernel of the CUDA graphs to the end of the last, and what their kernels take together."""
    graphs = {e.correlation_id() for e in events if e.name() == "cudaGraphLaunch"}
    kernels = [e for e in events if e.device_type() == DeviceType.CUDA and e.correlation_id() in graphs]
    if not kernels:
        return {}
    start, end = min(e.start_ns() for e in kernels), max(e.start_ns() + e.duration_ns() for e in kernels)
    return {"core_ms": (end - start) / 1e6, "core_busy_ms": sum(e.duration_ns() for e in kernels) / 1e6}


def _summary(events: Any) -> dict[str, Any]:
    on_device = [e for e in events if e.device_type == DeviceType.CUDA and not e.key.startswith("##")]
    launches = {e.key: e.count for e in events if "Launch" in e.key and e.device_type == DeviceType.CPU}
    ranked = sorted(on_device, key=lambda e: -e.self_device_time_total)
    return {
        "graph_launches": launches.get("cudaGraphLaunch", 0),
        "other_launches": sum(count for name, count in launches.items() if name != "cudaGraphLaunch"),
        "copies_to_host": sum(e.count for e in on_device if "DtoH" in e.key),
        "kernels": sum(e.count for e in on_device),
        "busy_ms": sum(e.self_device_time_total for e in on_device) / 1e3,
        "top": [[e.key[:80], e.count, round(e.self_device_time_total, 1)] for e in ranked[:15]],
    }
