"""What torch does around a compilation while the hooks are in: resets, stances, other backends, frames in frames, threads."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends import registry

import fxpass
from fxpass.torch_internals.dynamo import hooks

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def step(cache: Tensor, idx: Tensor, x: Tensor) -> Tensor:
    p = idx[0].item()
    cache[:, p : p + 1] = x
    idx[0] = p + 1
    return cache[:, : p + 1].cumsum(1).sum(1)


def kvfix(fn: Step) -> Step:
    return torch.compile(fn, backend="kvfix", options={"compiler": "eager"})



def resets(fn: Step) -> Iterator[Any]:
    for reset in (torch.compiler.reset, fxpass.reset, torch._dynamo.reset_code_state, torch.compiler.reset):
        yield contextlib.nullcontext()
        reset()


def stances(fn: Step) -> Iterator[Any]:
    for stance in ("force_eager", "default", "default", "eager_on_recompile", "fail_on_recompile"):
        yield torch.compiler.set_stance(stance)


def switched_off(fn: Step) -> Iterator[Any]:
    for disabled in (True, False, False, True, False):
        yield torch._dynamo.config.patch(disable=disabled)


INNER: dict[str, Callable[[Step], Step]] = {
    "ours": kvfix,
    "eager": lambda fn: torch.compile(fn, backend="eager"),
    "apart": lambda fn: torch.compiler.disable(kvfix(fn)),
}


@torch.no_grad()
@pytest.mark.parametrize("turns", [resets, stances, switched_off])
def test_what_changes_from_call_to_call(turns: Callable[[Step], Iterator[Any]]) -> None:
    follows(kvfix(step), step, turns(step))


@torch.no_grad()
@pytest.mark.parametrize("inner", list(INNER))
@pytest.mark.parametrize("backend", ["kvfix", "eager"])
def test_a_compiled_function_within_another(backend: str, inner: str) -> None:
    within = INNER[inner](step)

    def outer(cache: Tensor, idx: Tensor, x: Tensor) -> Tensor:
        return within(cache, idx, x) + 1

    options = {"options": {"compiler": "eager"}} if backend == "kvfix" else {}
    compiled = torch.compile(outer, backend=backend, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fxpass.KvfixWarning)  # of what is left out of the graph
        follows(compiled, lambda *args: step(*args) + 1, (contextlib.nullcontext() for _ in range(4)))


@torch.no_grad()
def test_a_hook_that_raises_in_a_frame_within_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    within = kvfix(step)

    def number_in(*args: Any) -> None:
        asked.append(None)
        raise KeyError("of ours")

    def outer(cache: Tensor, idx: Tensor, x: Tensor) -> Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return within(cache, idx, y - 1) * 1

    monkeypatch.setattr(hooks, "number_in", number_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fxpass.KvfixWarning)
        follows(kvfix(outer), step, (contextlib.nullcontext() for _ in range(3)))
    assert asked


def follows(compiled: Step, eager: Step, turns: Iterator[Any]) -> None:
    """``compiled`` gives what ``eager`` gives, and leaves what it leaves, in each of the ``turns``."""
    mine, its = ((torch.zeros(2, 8), torch.tensor([1])) for _ in range(2))
    for n, turn in enumerate(turns):
        x = torch.full((2, 1), 2.0 + n)
        with turn:
            found = compiled(*mine, x)
        assert torch.equal(found, eager(*its, x)), n
        assert all(map(torch.equal, mine, its)), n


def test_threads_that_look_a_backend_up_at_once_fail_in_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that a package brings is registered by each of them, and torch allows that once."""
    both, errors = threading.Barrier(2, timeout=30), []

    class EntryPoint:
        def load(self) -> Callable[..., Any]:
            both.wait()
            return lambda gm, inputs: gm

    def look_up() -> None:
        try:
            torch._dynamo.lookup_backend("made_up")
        except AssertionError as error:
            errors.append(str(error))

    torch._dynamo.list_backends()
    monkeypatch.setitem(registry._BACKENDS, "made_up", EntryPoint())
    threads = [threading.Thread(target=look_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry._COMPILER_FNS.pop("made_up")
    assert errors == ["duplicate name: made_up"]
