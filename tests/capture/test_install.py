"""The hooks stay off, with one warning, on a torch that they were not written for."""

from __future__ import annotations

import pytest
import torch

import fxpass
from fxpass import capture


def test_an_unknown_release_switches_the_hooks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from fxpass.capture import hooks

    installed: list[object] = []
    monkeypatch.setattr(hooks, "install", installed.append)
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    with pytest.warns(fxpass.KvfixWarning, match="torch 9.9 is none of 2.11"):
        capture.install.__wrapped__(lambda: None, lambda _: None)
    assert not installed


def test_a_hook_that_is_gone_switches_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from fxpass.capture import hooks

    def gone(is_ours: object) -> None:
        raise AttributeError("no such hook")

    monkeypatch.setattr(hooks, "install", gone)
    with pytest.warns(fxpass.KvfixWarning, match="no such hook"):
        capture.install.__wrapped__(lambda: None, lambda _: None)


@pytest.mark.parametrize("gpu, compiler, starts", [(True, "inductor", 1), (True, "eager", 0), (False, "inductor", 0)])
def test_worker_processes_start_with_torch_compile(
    gpu: bool, compiler: str, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import async_compile

    started: list[None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(async_compile, "maybe_warm_pool", lambda: started.append(None))
    torch.compile(lambda x: x, backend="kvfix", options={"compiler": compiler})
    assert len(started) == starts
