"""Pieces wait for their kernels when they are first called; a failing kernel is an error all the same."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from torch._inductor.async_compile import AsyncCompile

from fxpass.torch_internals import patches
from fxpass.torch_internals.inductor import launchers
from fxpass.torch_internals.inductor.overlap import _WAIT, kernels_later
from fxpass.torch_internals.patches import is_patched


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


def test_kernels_are_waited_for_at_the_first_call_in_order() -> None:
    with kernels_later() as kernels:
        Compiler().wait({"name": "first"})
        Compiler().wait({"name": "second"})
    run = kernels.before(lambda x: x + 1)
    assert Compiler.waited == []
    assert (run(1), Compiler.waited) == (2, ["first", "second"])
    assert (run(2), Compiler.waited) == (3, ["first", "second"])
    Compiler().wait({"name": "alone"})
    assert Compiler.waited[-1] == "alone"


def test_a_block_within_a_block_has_its_own() -> None:
    with kernels_later() as outer:
        with kernels_later() as inner:
            Compiler().wait({"name": "inner", "error": "no such instruction"})
        Compiler().wait({"name": "outer"})
    assert outer.before(lambda: "runs")() == "runs"
    with pytest.raises(RuntimeError, match="no such instruction"):
        inner.before(lambda: None)()


def test_a_kernel_that_does_not_compile_is_an_error_of_each_call() -> None:
    with kernels_later() as kernels:
        Compiler().wait({"name": "bad", "error": "no such instruction"})
        Compiler().wait({"name": "good"})
    run = kernels.before(lambda: None)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such instruction"):
            run()
    assert Compiler.waited == ["bad", "good"]


def test_who_comes_first_waits_for_all() -> None:
    """Inductor keeps a module, and does not run it again for the next graph with the same code."""
    with pytest.raises(KeyError):
        with kernels_later():
            Compiler().wait({"name": "given up"})
            raise KeyError
    with kernels_later() as kernels:
        pass
    assert kernels.before(lambda: "runs")() == "runs"
    assert Compiler.waited == ["given up"]


def test_what_is_being_compiled_is_waited_for_when_it_is_called() -> None:
    """Another thread may call something in the meantime."""
    with kernels_later() as first:
        Compiler().wait({"name": "first"})
    with kernels_later() as second:
        Compiler().wait({"name": "before"})
        thread = threading.Thread(target=first.before(lambda: None))
        thread.start()
        thread.join()
        Compiler().wait({"name": "after"})
    second.before(lambda: None)()
    assert Compiler.waited == ["first", "before", "after"]


def test_an_interrupt_is_no_error_of_the_kernels() -> None:
    with kernels_later() as kernels:
        for name in ("stopped", "next"):
            Compiler().wait({"name": name})
    run, stop = kernels.before(lambda: "runs"), [KeyboardInterrupt]

    def interrupted(self, scope):
        Compiler.waited.append(scope["name"])
        if stop:
            raise stop.pop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compiler, "_wait_futures", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
        assert run() == "runs"
    assert Compiler.waited == ["stopped", "stopped", "next"]


def test_the_patch_is_put_back_in_after_it_was_taken_out() -> None:
    with kernels_later():
        assert is_patched(_WAIT)
    undo = next(undo for undo in patches._undo if undo.args[1:2] == ("wait",))
    patches._undo.remove(undo)
    undo()
    assert not is_patched(_WAIT)
    with kernels_later() as kernels:
        Compiler().wait({"name": "again"})
    assert is_patched(_WAIT) and Compiler.waited == []
    kernels.before(lambda: None)()
    assert Compiler.waited == ["again"]


def kernel(*types: str, error: str = "") -> Any:
    """A future of Inductor's, whose kernel has arguments of these types; it is loaded by nobody here."""
    future: Future[Any] = Future()
    compiled = SimpleNamespace(src=SimpleNamespace(signature=dict(enumerate(types))), metadata=len(types))
    if error:
        future.set_exception(RuntimeError(error))
    else:
        future.set_result((SimpleNamespace(compile_results=[SimpleNamespace(kernel=compiled)]), 1))
    return SimpleNamespace(future=future)


def test_launchers_are_compiled_side_by_side_before_the_first_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each list of types; what does not compile, or is launched by Inductor itself, is left to the wait."""
    from triton import runtime

    made, meeting = [], threading.Barrier(3, timeout=20)

    def launcher(src: Any, metadata: int) -> None:
        assert Compiler.waited == []
        meeting.wait()
        made.append(list(src.signature.values()))
        assert metadata < 3, "no such type"

    monkeypatch.setattr(runtime, "driver", SimpleNamespace(active=SimpleNamespace(launcher_cls=launcher)))
    ready = Future[Any]()
    ready.set_result((SimpleNamespace(compile_results=[SimpleNamespace(kernel=SimpleNamespace(cubin=b""))]), 1))
    with kernels_later() as kernels:
        static = SimpleNamespace(future=ready)
        Compiler().wait({"name": "first", "a": kernel("*fp32"), "b": kernel("*fp32", "i32"), "c": static})
        more = {"d": kernel("*fp32"), "e": kernel(error="no"), "f": kernel("i32", "i32", "i32"), "g": 1}
        Compiler().wait({"name": "second", **more})
    assert kernels.before(lambda: "runs")() == "runs"
    assert sorted(made) == [["*fp32"], ["*fp32", "i32"], ["i32", "i32", "i32"]] and Compiler.waited == ["first", "second"]


def test_without_kernels_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "ThreadPoolExecutor", None)
    launchers.compile_launchers([{"name": "a module", "constant": 1}])
