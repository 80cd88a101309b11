"""All hooks stay off, with one warning, on a torch that they were not written for."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from torch._dynamo.utils import counters

TESTS = pathlib.Path(__file__).parents[1]


DECODE = """
import json, sys, warnings
import torch
from torch._dynamo import convert_frame, guards, output_graph, package, symbolic_convert, variables

def stock():
    return [convert_frame._compile, variables.TensorVariable.call_method, output_graph.OutputGraph.create_proxy,
            guards.GuardBuilder.get_guard_manager_from_source, guards.pickle_guards_state, torch._dynamo.optimize,
            *symbolic_convert.InstructionTranslator.dispatch_table]

before = stock()
version, owner, name = sys.argv[1:]
torch.__version__ = version or torch.__version__
owner = eval(owner)
gone = getattr(owner, name)
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught, torch.no_grad():
    delattr(owner, name)
    import fxpass
    setattr(owner, name, gone)  # torch itself may use it
    from small_models import CACHES, Attention, kvfix, same_step, steps

    model = Attention().eval()
    compiled, eager_cache, cache = kvfix(model), CACHES["item"](), CACHES["item"]()
    for i, x in enumerate(steps()):
        same_step(f"step {i}", model, compiled, x, eager_cache, cache, True)
ours = [str(w.message) for w in caught if issubclass(w.category, fxpass.KvfixWarning)]
print(json.dumps({"warnings": ours, "stock": stock() == before, "graphs": len(fxpass.reports())}))
"""

EXC = "torch._dynamo.exc"


@pytest.mark.parametrize(
    "version, owner, gone, reason",
    [
        ("2.16.0", EXC, "TensorifyScalarRestartAnalysis", "torch 2.16 is none of 2.11"),
        ("", EXC, "TensorifyScalarRestartAnalysis", "TensorifyScalarRestartAnalysis"),
        ("", "torch._dynamo.package", "_lookup_code", "_lookup_code"),
        ("", "torch._dynamo", "reset_code_state", "reset_code_state"),
    ],
)
def test_another_torch_switches_all_hooks_off(version: str, owner: str, gone: str, reason: str) -> None:
    """Models compile and give eager's numbers; what torch is made of stays as it was."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    run = [sys.executable, "-c", DECODE, version, owner, gone]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["stock"] and found["graphs"]
    assert "are not captured with this torch" in found["warnings"][0] and reason in found["warnings"][0]


@torch.no_grad()
def test_a_reset_of_torch_forgets_what_was_first_seen() -> None:
    """Two numbers that have differed are told apart from then on; after a reset they are taken for one again."""
    compiled = torch.compile(lambda x, i: x * i[0].item() * i[1].item(), backend="kvfix", options={"compiler": "eager"})
    for _ in range(2):
        torch.compiler.reset()
        counters.clear()
        for pair in [(2, 2), (3, 3), (4, 5)]:
            assert compiled(torch.ones(1), torch.tensor(pair)) == pair[0] * pair[1]
        assert counters["stats"]["unique_graphs"] == 3


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
