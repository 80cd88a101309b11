"""Compiled models in threads, in turns, after resets and errors; and what is dropped is let go."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import threading
import weakref

import pytest
import torch
from small_models import Attention, ItemCache, kvfix, same_step, steps

import fxpass
from fxpass.index_tensors import mirror

ROUNDS = int(os.environ.get("KVFIX_ROUNDS", "3"))


@torch.no_grad()
def forecast(model: Attention, compiled: object) -> None:
    cache = ItemCache()
    eager_cache = copy.deepcopy(cache)
    for x in steps(decoded=3):
        same_step("forecast", model, compiled, x, eager_cache, cache)


@pytest.mark.parametrize("shared", [True, False], ids=["one model", "a model each"])
def test_eight_threads(shared: bool) -> None:
    model = Attention()
    compiled = kvfix(model)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            mine = model if shared else Attention()
            run = compiled if shared else kvfix(mine)
            for _ in range(ROUNDS):
                forecast(mine, run)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert not errors, errors[0]


@pytest.mark.parametrize("reset", [None, fxpass.reset, torch._dynamo.reset], ids=["", "fxpass", "dynamo"])
def test_two_models_in_turn(reset: object) -> None:
    models = [Attention(), Attention()]
    compiled = [kvfix(model) for model in models]
    for _ in range(ROUNDS):
        for model, run in zip(models, compiled):
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


@torch.no_grad()
def test_what_is_dropped_is_let_go() -> None:
    model, cache = Attention(), ItemCache()
    compiled = kvfix(model)
    for x in steps():
        compiled(x, cache)
    held = [weakref.ref(v) for v in (model, cache, cache.keys, cache.index)]
    del model, cache, compiled, x
    torch._dynamo.reset()
    gc.collect()
    assert [ref() for ref in held] == [None] * 4 and not mirror._entries


def test_objects_do_not_grow() -> None:
    """Forecasts after the first ones leave nothing behind."""
    model = Attention()
    compiled = kvfix(model)
    counts = []
    for _ in range(4):
        for _ in range(ROUNDS):
            forecast(model, compiled)
        gc.collect()
        counts.append(len(gc.get_objects()))
    assert counts[3] - counts[2] < 50 and len(mirror._entries) == 0, counts
