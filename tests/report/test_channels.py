"""The log under TORCH_LOGS, and the artifacts in torch's trace."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_models import Attention, ItemCache, kvfix, steps

from fxpass import backend
from fxpass.options import parse

PROGRAM = """
import torch
step = torch.compile(lambda k, p: k[:, :p].sum(1), backend="kvfix", options={"compiler": "eager"})
for p in (3, 4):
    step(torch.ones(2, 8), p)
"""


def test_torchs_own_switches(tmp_path: Path) -> None:
    """``TORCH_LOGS`` finds the log by its name, and the trace has three artifacts of each graph."""
    environment = {**os.environ, "TORCH_LOGS": "+fxpass", "TORCH_TRACE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert "graph 1: 1 rewritten, 0 refused" in done.stderr and "slice_1: f32[2, pos] = aten.slice(k, 1, 0, p)" in done.stderr
    trace = "".join(path.read_text() for path in tmp_path.iterdir())
    for name in ("kvfix_before", "kvfix_after", "kvfix_report"):
        assert trace.count(f'"name": "{name}"') == 2
    assert "aten.slice(k, 1, 0, p)" in trace and "graph 1: 1 rewritten" in trace


@pytest.mark.parametrize("level, reports, code", [("WARNING", False, False), ("INFO", True, False), ("DEBUG", True, True)])
def test_levels_of_the_log(level: str, reports: bool, code: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(level, "fxpass"):
        exec(PROGRAM)
    said = "\n".join(record.getMessage() for record in caplog.records if record.name == "fxpass")
    assert ("graph 1: 1 rewritten" in said) == reports and ("aten.slice(k, 1, 0, p)" in said) == code


@torch.no_grad()
def test_a_decode_that_is_compiled_may_not_compile_again() -> None:
    model, cache = Attention(), ItemCache()
    compiled, inputs = kvfix(model), steps(decoded=4)
    for x in inputs[:3]:
        compiled(x, cache)
    with torch.compiler.set_stance("fail_on_recompile"):
        for x in inputs[3:]:
            compiled(x, cache)
        with pytest.raises(RuntimeError, match="fail_on_recompile"):
            compiled(torch.cat([x, x], 1), cache)


@torch.no_grad()
@pytest.mark.parametrize("strict", [False, True])
def test_torchs_minifier_runs_what_is_compiled(strict: bool, tmp_path: Path) -> None:
    """With ``TORCHDYNAMO_REPRO_AFTER=dynamo`` a decode goes on, and the graph that kvfix raises on becomes a script."""
    options = {"compiler": "eager", "strict": strict}
    step = torch.compile(lambda k, p: k[:, :p].mode(1).values * 2, backend="kvfix", options=options)
    with torch._dynamo.config.patch(repro_after="dynamo", debug_dir_root=str(tmp_path)):
        step(torch.rand(2, 8), 3)
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="KV101") if strict else pytest.warns(match="KV101"):
            step(torch.rand(2, 8), 4)
    scripts = list(tmp_path.rglob("minifier_launcher.py"))
    assert len(scripts) == strict
    for script in scripts:
        compile(text := script.read_text(), str(script), "exec")
        assert "backend='kvfix'" in text and "mode(1)" in text


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that runs the minifier's script for a graph in which one op has no rule, with these arguments."""
    step = torch.compile(lambda k, p: k[:, :p].mode(1).values * 2, backend="kvfix", options={"compiler": "eager"})
    monkeypatch.setenv("KVFIX_STRICT", "1")
    monkeypatch.setattr(backend, "parse", lambda options, mode: parse({"compiler": "eager", **(options or {})}, mode))
    with torch._dynamo.config.patch(repro_after="dynamo", debug_dir_root=str(tmp_path)), torch.no_grad():
        step(torch.rand(2, 8), 3)
        with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="KV101"):
            step(torch.rand(2, 8), 4)
    (script,) = tmp_path.rglob("minifier_launcher.py")
    monkeypatch.chdir(tmp_path)
    for name in ("TORCH_COMPILE_DEBUG_DIR", "TORCHINDUCTOR_CACHE_DIR"):  # which the script sets
        monkeypatch.setenv(name, os.environ.get(name, str(tmp_path)))
    torch._dynamo.reset()

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        with torch._dynamo.config.patch(), torch.no_grad():
            runpy.run_path(str(script), run_name="__main__")

    return run


@pytest.mark.filterwarnings("ignore")  # of torch's script
def test_the_minifiers_script_reproduces(launcher: Callable[..., None]) -> None:
    """It has to be told that the numbers in it move. Else nothing fails, and no smaller graph that fails is found."""
    with torch.compiler.config.patch(dynamic_sources=".*"), pytest.raises(Exception, match="KV101 no rule for aten.mode"):
        launcher("run")
    torch._dynamo.reset()
    with pytest.raises(Exception, match="Input graph did not fail the tester"):
        launcher("minify")
