"""``kvfix demo``, with three of its rows and without code generation."""

from __future__ import annotations

import json
import pathlib
from importlib.metadata import entry_points

import pytest
import torch

from fxpass.tools.compare import ComparisonRow, comparison_table
from toto_model import demo

KEPT = [a for a in demo.APPROACHES if a.name in ("eager", "stock fixed_size", "kvfix upstream")]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "APPROACHES", tuple(KEPT))
    monkeypatch.setattr(demo, "longest_first", lambda: KEPT)


def test_json(capfd: pytest.CaptureFixture[str]):
    assert demo.run(compiler="eager", seed=1, as_json=True, verify=3) == 0
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert err == ""
    assert (found["compiler"], found["device"], found["seed"]) == ("eager", "cpu", 1)
    assert found["torch"] == torch.__version__
    eager, fixed, kvfix = found["rows"]
    assert (eager["mae"], eager["max_diff"], eager["graphs"]) == (0, 0, None)
    for row in (fixed, kvfix):
        assert (row["graphs"], row["breaks"], row["recompiles"], row["error"]) == (2, 0, 1, "")
        assert row["mae"] < 1e-6 and row["max_diff"] < 1e-5 and row["ms"] > 0
    assert found["report"]["sites"] and not found["report"]["unfit"]


def test_shown(capfd: pytest.CaptureFixture[str]):
    assert demo.run(compiler="eager") == 0
    out, err = capfd.readouterr()
    assert "3 ways to decode, compiled with eager" in err
    for piece in (
        "9 rewritten, 0 refused",
        "--- before\n+++ after",
        "index_copy_",
        "2 layers of width 32",
        "kvfix upstream",
    ):
        assert piece in out


def test_a_row_that_dies_is_a_row(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    bad = demo.DemoRow("kvfix", "no such cache")
    monkeypatch.setattr(demo, "longest_first", lambda: [*KEPT[:1], bad])
    monkeypatch.setattr(demo, "APPROACHES", (*KEPT[:1], bad))
    assert demo.run(compiler="eager") == 1
    assert "kvfix no such cache  ValueError: unknown kv_cache 'no such cache'" in capfd.readouterr().out


def test_no_such_device(capfd: pytest.CaptureFixture[str]):
    assert demo.run(device="nonsense") == 2
    assert "no device 'nonsense'" in capfd.readouterr().err


@pytest.mark.parametrize("verify", [None, 0, 3])
def test_the_self_check_is_an_option(verify: int | None, monkeypatch: pytest.MonkeyPatch):
    given: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda model, backend, options: given.append(options))
    demo.compiled(KEPT[-1], demo.Settings("eager", "cpu", 0, verify))
    assert given == [{"compiler": "eager", **({} if verify is None else {"verify": verify})}]


def test_installed():
    (entry,) = entry_points(group="kvfix_demo", name="toto")
    assert entry.load() is demo.run


def test_decode_step_is_a_factory():
    fn, args, kwargs = demo.decode_step()
    with torch.no_grad():
        first, second = fn(*args, **kwargs), fn(*args, **kwargs)
    assert first.shape == second.shape == (1, demo.VARIATES, 1, demo.demo_config().embed_dim)
    assert args[2].current_len(0) == 6


def test_readme_shows_the_recorded_table() -> None:
    root = pathlib.Path(__file__).parents[2]
    rows = json.loads((root / "benchmarks/results/demo.json").read_text())["rows"]
    assert comparison_table([ComparisonRow(**row) for row in rows]) in (root / "README.md").read_text()
