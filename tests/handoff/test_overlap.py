"""Pieces wait for their kernels together; a failing kernel is an error all the same."""

from __future__ import annotations

import pytest
from torch._inductor.async_compile import AsyncCompile

from fxpass.handoff.overlap import kernels_later


class Compiler(AsyncCompile):
    """Inductor's, with a wait that can be seen."""

    waited: list[str] = []

    def _wait_futures(self, scope):
        self.waited.append(scope["name"])
        if "error" in scope:
            raise RuntimeError(scope["error"])


@pytest.fixture(autouse=True)
def several_threads(monkeypatch):
    monkeypatch.setattr("torch._inductor.async_compile.get_compile_threads", lambda: 2)
    monkeypatch.setattr(Compiler, "waited", [])


def test_kernels_are_waited_for_at_the_end_in_order() -> None:
    with kernels_later():
        Compiler().wait({"name": "first"})
        with kernels_later():
            Compiler().wait({"name": "second"})
        assert Compiler.waited == []
    assert Compiler.waited == ["first", "second"]
    Compiler().wait({"name": "alone"})
    assert Compiler.waited[-1] == "alone"


def test_a_kernel_that_does_not_compile_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no such instruction"):
        with kernels_later():
            Compiler().wait({"name": "bad", "error": "no such instruction"})
    Compiler().wait({"name": "next"})
    assert Compiler.waited == ["bad", "next"]


def test_all_wait_where_one_fails_and_where_the_block_does() -> None:
    """Inductor keeps the module, and does not run it again."""
    with pytest.raises(KeyError):
        with kernels_later():
            Compiler().wait({"name": "bad", "error": "no such instruction"})
            Compiler().wait({"name": "good"})
            raise KeyError
    assert Compiler.waited == ["bad", "good"]
    Compiler().wait({"name": "next"})
    assert Compiler.waited[-1] == "next"
