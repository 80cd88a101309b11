"""Kernels are compiled while a block runs, each once, for what the graph's ops will launch."""

from __future__ import annotations

import contextlib
import threading

import pytest
import torch
from graphs import traced

from fxpass.kernels.launches.launch import Launch, compiling_kernels

aten = torch.ops.aten


class Kernel:
    """A Triton kernel as far as its launches are concerned."""

    def __init__(self, error: str = "") -> None:
        self.compiled: list[tuple] = []
        self.launched: list[tuple] = []
        self.error, self.block_runs = error, threading.Event()

    def warmup(self, *args, grid, **options):
        assert self.block_runs.wait(10)
        if self.error:
            raise RuntimeError(self.error)
        self.compiled.append((args, grid, options))

    def __getitem__(self, grid):
        return lambda *args, **options: self.launched.append((args, grid, options))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    monkeypatch.setenv("TRITON_CACHE_DIR", "unused")


def graph():
    return traced(lambda x, y: (x + y, y + x, x[:1] + y, x * y), [torch.ones(2, 3), torch.ones(2, 3)])


def launches(kernel):
    return {aten.add.Tensor: lambda x, y: [Launch(kernel, 4, (x, y, x.shape[0]), {"BLOCK": x.shape[1]})]}


def test_each_kind_of_launch_is_compiled_once_meanwhile() -> None:
    kernel = Kernel()
    with compiling_kernels(graph(), launches(kernel)):
        assert kernel.compiled == []
        kernel.block_runs.set()
    expected = [((torch.float32, torch.float32, rows), (4,), {"BLOCK": 3}) for rows in (1, 2)]
    assert sorted(kernel.compiled, key=str) == expected
    assert kernel.launched == []


def test_a_kernel_that_does_not_compile_is_left_to_its_launch() -> None:
    kernel = Kernel("no such instruction")
    kernel.block_runs.set()
    with compiling_kernels(graph(), launches(kernel)):
        pass
    assert kernel.compiled == []


def test_nothing_to_compile() -> None:
    with compiling_kernels(graph(), {}):
        pass


def test_run() -> None:
    kernel, x = Kernel(), torch.ones(2)
    Launch(kernel, 4, (x, 3), {"BLOCK": 8}).run()
    assert kernel.launched == [((x, 3), (4,), {"BLOCK": 8})]
