"""Threads that share a compiled function find the graphs that there are, however their calls interleave."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import fxpass
from fxpass.torch_internals import lookup_order

THREADS, ROUNDS = 8, 60


class Held:
    """A position that is an attribute."""

    def __init__(self, lens: Tensor) -> None:
        self.at = int(lens[1])


def element(x: Tensor, lens: Tensor) -> Tensor:
    return x[:, : lens[1].item()].sum(1) if lens[0].item() else x.sum(1)


def bound(x: Tensor, lens: Tensor) -> Tensor:
    return x[:, : lens[1]].sum(1) if lens[0] > 0 else x.sum(1)


def longest(x: Tensor, lens: Tensor) -> Tensor:
    return x[:, : lens.max().item()].sum(1) if lens[0].item() else x.sum(1)


def several(x: Tensor, lens: Tensor) -> Tensor:
    a, b = lens.tolist()
    return x[:, :a].sum(1) + x[:, :b].sum(1)


def attribute(x: Tensor, held: Held) -> Tensor:
    return x.sum(1) if held.at == 2 else x[:, : held.at].sum(1)


def argument(x: Tensor, at: int) -> Tensor:
    return x.sum(1) if at == 2 else x[:, :at].sum(1)


def kvfix(fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return torch.compile(fn, backend="kvfix", options={"compiler": "eager"})


@pytest.fixture
def threads_often_take_turns() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("threads_often_take_turns")
@pytest.mark.parametrize(
    "fn, given",
    [(element, Tensor.clone), (bound, Tensor.clone), (longest, Tensor.clone), (several, Tensor.clone),
     (attribute, Held), (argument, lambda lens: int(lens[1]))],
)  # fmt: skip
def test_no_thread_passes_over_a_graph(fn: Callable[..., Tensor], given: Callable[[Tensor], Any]) -> None:
    run = kvfix(fn)
    x = torch.arange(16.0).view(2, 8)
    wanted = [(lens, fn(x, given(lens))) for lens in map(torch.tensor, ((0, 2), (3, 4), (4, 6), (5, 5)))]
    errors: list[BaseException] = []

    def work(rounds: int = ROUNDS) -> None:
        try:
            for _ in range(rounds):
                for lens, result in wanted:
                    assert torch.equal(run(x, given(lens)), result)
        except BaseException as error:
            errors.append(error)

    work(2)
    graphs = counters["stats"]["unique_graphs"]
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert counters["stats"]["unique_graphs"] == graphs > 1


@pytest.mark.parametrize("reset", [fxpass.reset, torch._dynamo.reset])
def test_one_thread_leaves_the_order_to_dynamo(reset: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr(lookup_order, "_move_to_front", told.append)
    run = kvfix(element)
    call = lambda: run(torch.ones(1, 4), torch.tensor([1, 2]))  # noqa: E731
    call()
    call()
    assert told == []
    for _ in range(2):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert told == [False]
    reset()
    assert told == [False, True]
