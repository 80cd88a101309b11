"""Compiled models in threads, in turns, after resets and errors; and what is dropped is let go.

A few rounds of what ``python -m tests.lifetime`` runs for long.
"""

from __future__ import annotations

import copy
import multiprocessing
import unittest.mock

import pytest
import torch
from small_models import Attention, ItemCache, kvfix, same_step, steps

import fxpass
from fxpass.index_tensors import mirror

from . import runs
from .__main__ import flat, gone

ROUNDS = 3


@torch.no_grad()
def forecast(model: Attention, compiled: object) -> None:
    cache = ItemCache()
    eager_cache = copy.deepcopy(cache)
    for x in steps(decoded=3):
        same_step("forecast", model, compiled, x, eager_cache, cache)


@pytest.mark.parametrize("shared", [True, False], ids=["one model", "a model each"])
def test_eight_threads(shared: bool) -> None:
    runs.in_threads(ROUNDS, shared)


@pytest.mark.parametrize("reset", [None, fxpass.reset, torch._dynamo.reset], ids=["", "fxpass", "dynamo"])
def test_two_models_in_turn(reset: object) -> None:
    models = [Attention(), Attention()]
    compiled = [kvfix(model) for model in models]
    for _ in range(ROUNDS):
        for model, run in zip(models, compiled, strict=True):
            forecast(model, run)
            if callable(reset):
                reset()


class Fails(Attention):
    """Raises once, after the cache has been written."""

    failing = False

    def attend(self, *args: object) -> torch.Tensor:
        if self.failing:
            raise KeyError("in mid-forecast")
        return super().attend(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["model", "hook"])
@torch.no_grad()
def test_an_exception_in_mid_forecast(where: str) -> None:
    model, cache = Fails(), ItemCache()
    compiled, eager_cache = kvfix(model), copy.deepcopy(cache)

    def hook(*args: object) -> None:
        raise KeyError("in mid-forecast")

    for i, x in enumerate(steps(decoded=6)):
        if i == 3:
            handle = model.out.register_forward_hook(hook) if where == "hook" else None
            model.failing = where == "model"
            for run, own in ((model, eager_cache), (compiled, cache)):
                with pytest.raises(KeyError):
                    run(x, own)
            model.failing = False
            if handle is not None:
                handle.remove()
        same_step(f"step {i}", model, compiled, x, eager_cache, cache)


def in_a_process() -> None:
    torch.set_num_threads(1)
    model = Attention()
    forecast(model, kvfix(model))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_after_compiling(method: str) -> None:
    in_a_process()
    process = multiprocessing.get_context(method).Process(target=in_a_process)
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0


def test_what_is_dropped_is_let_go() -> None:
    gone(runs.dropped())
    assert not mirror._entries


def test_nothing_grows() -> None:
    """Forecasts after the first ones leave nothing behind."""
    flat(runs.in_a_row(4 * ROUNDS))


def test_eager_calls_in_between() -> None:
    runs.at_random(8 * ROUNDS)


def test_growth_is_seen() -> None:
    kept = []

    def keeps(*args: object) -> None:
        kept.append([[] for _ in range(100)])

    with unittest.mock.patch.object(runs, "forecast", keeps), pytest.raises(AssertionError):
        flat(runs.in_a_row(8))


def test_a_thread_that_is_wrong_is_seen() -> None:
    with unittest.mock.patch.object(runs, "compiled", lambda model, compiler: lambda x, cache: x):
        with pytest.raises(AssertionError):
            runs.in_threads(1, shared=True)
