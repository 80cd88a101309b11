"""What was first seen of a frame's numbers belongs to its code object, not to one that equals it, and dies with it."""

from __future__ import annotations

import gc
from types import CodeType

import pytest
import torch

import fxpass
from fxpass.torch_internals.dynamo.frames import history

TEXT = "def step(x, idx): return x[:int(idx[0]) + int(idx[1])].sum()"


def made() -> CodeType:
    scope: dict = {}
    exec(compile(TEXT, __file__, "exec"), scope)  # torch 2.11 wraps functions without a file, all by one code
    return scope["step"]


def test_equal_codes_are_told_apart() -> None:
    one, other = made().__code__, made().__code__
    assert one == other and one is not other
    history.see_elements(one, "idx", (1, 2))
    assert history.see_elements(other, "idx", (3, 3)).groups == (0, 0)
    assert history.see_elements(one, "idx", (3, 3)).groups == (0, 1)


def test_a_code_that_has_died_is_forgotten() -> None:
    for _ in range(20):
        history.see_elements(made().__code__, "idx", (1, 2))
    gc.collect()
    assert len(history._frames) == 0


def test_functions_of_one_text_each_learn_for_themselves() -> None:
    """The lengths part in the first function alone."""
    fxpass.reset()
    steps = [torch.compile(made(), backend="kvfix", options={"compiler": "eager"}) for _ in range(4)]
    for i, step in enumerate(steps):
        for a, b in [(1, 1), (2, 2), (3, 4 if i == 0 else 3)]:
            assert step(torch.ones(16), torch.tensor([a, b])) == a + b
    alike = [seen.elements["L['idx']"].groups for seen in history._frames.values()]
    assert sorted(alike) == [(0, 0)] * 3 + [(0, 1)]


def test_all_resets_forget() -> None:
    code = made().__code__
    for reset in (fxpass.reset, torch._dynamo.reset, torch.compiler.reset):
        torch.compile(lambda x: x, backend="kvfix", options={"compiler": "eager"})
        history.see_elements(code, "idx", (1, 2))
        reset()
        assert len(history._frames) == 0


def test_where_nothing_is_compiled_there_is_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    assert history.current_code() is None
    monkeypatch.setattr(history.InstructionTranslator, "current_tx", lambda: None)  # as on torch 2.11
    assert history.current_code() is None
