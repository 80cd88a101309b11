"""Configurations of kernels are timed in recordings, where what runs is a core of ours, and in Inductor's way elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fxpass.torch_internals.inductor import tuning

STOCK = 5.0


class Tuner:
    """What is taken of Inductor's tuner: a copy of what the kernel writes for each launch."""

    inductor_meta: dict[str, int] = {}

    def __init__(self, custom_kernel: bool = False) -> None:
        self.custom_kernel = custom_kernel

    def maybe_clone_args(self, exclude: Any, x: torch.Tensor, **named: Any) -> tuple[list[Any], dict[str, Any]]:
        return [x.clone()], named


class Launcher:
    def __init__(self, n_spills: int | None = 0) -> None:
        self.n_spills, self.written = n_spills, []

    def __call__(self, x: torch.Tensor, stream: int) -> None:
        self.written.append(x.add_(1))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "holds", lambda feature: False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=7))


def replayed(calls: Callable[[], Any], count: int) -> float:
    calls()
    return 1000.0 * count


def bench(tuner: Tuner, launcher: Launcher, x: torch.Tensor) -> float:
    return tuning._bench(lambda *args, **kwargs: STOCK, tuner, launcher, x)


def test_each_launch_writes_a_copy_of_its_own() -> None:
    launcher, x = Launcher(), torch.zeros(2)
    with tuning.timed_by(replayed):
        assert bench(Tuner(), launcher, x) == tuning.LAUNCHES  # ms
    assert [w.tolist() for w in launcher.written] == [[1, 1]] * tuning.LAUNCHES and x.tolist() == [0, 0]


@pytest.mark.parametrize(
    "times, taken",
    [((1.13, 1.11), 0), ((1.0, 0.96, 0.94), 2), ((1.0, 0.96, 0.955, 0.951), 0), ((1.0, 0.5, 0.49, 0.7), 1), ((1.0, 1.2), 0)],
)
def test_the_first_of_those_that_take_equally_long_is_taken(times: tuple[float, ...], taken: int) -> None:
    left, tuner = [t for t in times for _ in range(2)], Tuner()  # by few launches, and by more
    with tuning.timed_by(lambda calls, count: left.pop(0)):
        seen = [bench(tuner, Launcher(), torch.zeros(2)) for _ in times]
        left += [0.99, 0.99]
        assert bench(Tuner(), Launcher(), torch.zeros(2)) == 0.99e-3  # each kernel is for itself
    assert seen.index(min(seen)) == taken


def test_a_short_kernel_is_launched_more_often() -> None:
    for microseconds, launched in ((2.0, tuning.LAUNCHES + tuning.MORE), (20.0, tuning.LAUNCHES)):
        launcher, times = Launcher(), [microseconds] * 2

        def timed(calls: Callable[[], Any], count: int, times: list[float] = times) -> float:
            calls()
            return times.pop()

        with tuning.timed_by(timed):
            assert bench(Tuner(), launcher, torch.zeros(2)) == microseconds / 1e3
        assert len(launcher.written) == launched


@pytest.mark.parametrize("tuner, launcher", [(Tuner(True), Launcher()), (Tuner(), Launcher(17))], ids=["custom", "spills"])
def test_what_inductor_decides_by_itself(tuner: Tuner, launcher: Launcher) -> None:
    with tuning.timed_by(replayed):
        assert bench(tuner, launcher, torch.zeros(2)) == STOCK
    assert not launcher.written


def test_elsewhere() -> None:
    launcher = Launcher()
    with tuning.timed_by(replayed):
        pass
    assert bench(Tuner(), launcher, torch.zeros(2)) == STOCK and not launcher.written
