"""`fxpass.repro` writes a script that runs alone."""

from __future__ import annotations

import gc
import pickle
import re
import runpy
import weakref
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from small_models import Attention, AttributeCache, BoundsCache, Custom, ItemCache, StartPos, kvfix, steps
from torch import Tensor

import fxpass
from fxpass import Report
from fxpass.execute.calls import assemble
from fxpass.verify import repro
from fxpass.verify.script import with_graph


def held(k: Tensor, v: Tensor) -> Tensor:
    """With a tensor that is the graph's own."""
    return k.sum(2) * torch.tensor([1.0, 2.0, 3.0, 4.0])


PROGRAMS: dict[str, Any] = {
    "item": lambda: (Attention(), ItemCache()),
    "bounds": lambda: (Attention(), BoundsCache()),
    "int": lambda: (Attention(), AttributeCache()),
    "attribute": lambda: (Custom(held), ItemCache()),
}


def decode(name: str) -> Report:
    model, cache = PROGRAMS[name]()
    compiled = kvfix(model, verify=0)
    with torch.no_grad():
        for x in steps(decoded=3):
            compiled(x, cache)
    return fxpass.reports()[-1]


def kinds(report: Report) -> list[tuple[str, str]]:
    """What was found, but for branches and assertions, which are guards of the model and not of its graph."""
    return [(site.kind, site.decision) for site in report.sites if site.kind != "predicate"]


def status(path: str) -> Any:
    """The exit status of the script."""
    torch._dynamo.reset()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    return ended.value.code


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_script_runs_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = decode(name)
    path = fxpass.repro(report, str(tmp_path / "repro.py"))
    assert list(tmp_path.iterdir()) == [Path(path)]
    assert status(path) == 0 and capsys.readouterr().out.endswith("no difference\n")
    assert kinds(fxpass.reports()[-1]) == kinds(report) and report.rewritten


def test_the_script_makes_the_longest_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def step(x: Tensor, k: Tensor, lens: Tensor) -> Tensor:
        k[torch.arange(4), lens] = x
        lens += 1
        return k[:, : int(lens.max())].sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "verify": 0})
    k, lens = torch.zeros(4, 16, 8), torch.tensor([3, 1, 5, 2])
    for _ in range(3):
        compiled(torch.ones(4, 8), k, lens)
    report = fxpass.reports()[-1]
    assert status(fxpass.repro(report, str(tmp_path / "repro.py"))) == 0
    assert "[0:4:1].max().item()" in (tmp_path / "repro.py").read_text()
    assert capsys.readouterr().out.endswith("no difference\n")
    assert kinds(fxpass.reports()[-1]) == kinds(report) and report.rewritten


def test_the_script_shows_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fxpass.repro(decode("item"), str(tmp_path / "repro.py"))
    wrong = lambda *given: lambda gm, *rest: lambda *args: [a + 1 for a in gm(*args)]  # noqa: E731
    with mock.patch.object(assemble, "compiler", wrong):
        assert status(path) == 1
    assert "they differ" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["around", "with_graph"])
def test_a_graph_without_a_script_says_why(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="graph 9 has no script: no backend compiled it"):
        fxpass.repro(Report("graph 9"))
    monkeypatch.setattr(f"fxpass.verify.repro.{where}", mock.Mock(side_effect=KeyError("a model of its own")))
    step = torch.compile(StartPos(), backend="kvfix", options={"compiler": "eager"})
    with torch.no_grad():
        step(steps()[0], 0)
    with pytest.raises(RuntimeError, match="graph 0 has no script: KeyError: 'a model of its own'"):
        fxpass.repro(fxpass.reports()[0])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_script_is_made_when_it_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is what it would have been while the graph was compiled, whatever has become of graph and index since; but in
    comments on sizes, two symbols that a guard has found equal are one."""
    made: list[str] = []

    def script_of(gm: Any, inputs: Any, *rest: Any) -> Any:
        made.append(repro.script_of(gm, inputs, *rest)())
        return repro.script_of(gm, inputs, *rest)

    monkeypatch.setattr("fxpass.backend.script_of", script_of)
    with mock.patch.object(repro, "with_graph", side_effect=with_graph) as asked:
        report = decode(name)
        assert asked.call_count == len(made) == 2
    text = report.script()
    assert re.sub(r'"[^"\n]*"', "", text) == re.sub(r'"[^"\n]*"', "", made[-1])
    assert pickle.loads(pickle.dumps(report)).script() == text


def test_a_report_keeps_no_tensor_of_the_caller() -> None:
    model, cache = Custom(held), ItemCache()
    kept = [*model.parameters(), cache.keys, cache.values, cache.index]
    gone = [weakref.ref(tensor) for tensor in kept]
    compiled = kvfix(model, verify=0)
    with torch.no_grad():
        for x in steps(decoded=3):
            compiled(x, cache)
    reports = fxpass.reports()
    torch.compiler.reset()
    del model, cache, compiled, kept
    gc.collect()
    assert len(gone) > 3 and not any(ref() is not None for ref in gone)
    assert reports[-1].script().startswith("'kvfix: graph 1")
