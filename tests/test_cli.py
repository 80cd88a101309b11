"""The command line: what it prints, and one line and exit status 2 for whatever is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fxpass.cli import app

BAD = {
    "": "not of the form MODULE:FACTORY",
    "cli_targets": "not of the form MODULE:FACTORY",
    ":good": "not of the form MODULE:FACTORY",
    "cli_targets:": "not of the form MODULE:FACTORY",
    "no_such_module:good": "cannot import 'no_such_module'",
    "cli_targets.deeper:good": "cannot import 'cli_targets.deeper'",
    ".relative:good": "cannot import '.relative'",
    "cli_broken:good": "cli_broken.py:1)",
    "cli_exits:good": "cannot import 'cli_exits': SystemExit: 3",
    "cli_targets:missing": "'cli_targets' has no 'missing'",
    "cli_targets:good.missing": "'cli_targets' has no 'good.missing'",
    "cli_targets:CONSTANT": "is of type int, not a function",
    "cli_targets:raises": "failed: ValueError: no weights here (",
    "cli_targets:needs_argument": "failed: TypeError: needs_argument() missing 1 required positional argument",
    "cli_targets:returns_number": "returned type int, not (callable, args, kwargs)",
    "cli_targets:returns_pair": "returned type tuple of length 2, not (callable, args, kwargs)",
    "cli_targets:returns_no_callable": "returned type int in place of the callable",
    "cli_targets:returns_string_for_args": "returned type str in place of the tuple of arguments",
    "cli_targets:returns_list_for_kwargs": "returned type list in place of the dict of keyword arguments",
}


def kvfix(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", ["print", "explain"])
@pytest.mark.parametrize("target", BAD)
def test_bad_target(command: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cli_broken.py").write_text("1 / 0\n")
    (tmp_path / "cli_exits.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = kvfix(command, target)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("kvfix: ") and result.stderr.count("\n") == 1
    assert BAD[target] in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "print",
        "nonsense",
        "print cli_targets:good --stage middle",
        "print cli_targets:good --calls 0",
        "demo --name nonsense",
        "demo --device nonsense",
        "reach --device nonsense",
        "reach no.such.module",
    ],
)
def test_bad_command_line(arguments: str):
    result = kvfix(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == "" and "Traceback" not in result.stderr


def test_print_stages():
    before, after, diff = (kvfix("print", "cli_targets:good", "--stage", s).stdout for s in ("before", "after", "diff"))
    assert "copy_" in before and "index_copy_" not in before
    assert "index_copy_" in after
    assert diff.startswith("--- before\n+++ after\n")
    assert kvfix("print", "cli_targets:keywords").stdout == after


def test_explain():
    result = kvfix("explain", "cli_targets:good")
    assert result.exit_code == 0
    assert "graph 0: 0 rewritten" in result.stdout
    assert "write" in result.stdout and "cli_targets.py:25" in result.stdout


def test_too_few_calls_see_no_position_move():
    assert "index_copy_" not in kvfix("print", "cli_targets:good", "--calls", "1").stdout


@pytest.mark.parametrize(
    "target, said",
    [("full", "AssertionError: the buffer is full (cli_targets.py:24)"), ("nothing_to_compile", "no graph")],
)
def test_failing_callable(target: str, said: str):
    result = kvfix("print", f"cli_targets:{target}")
    assert result.exit_code == 1
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert said.partition(" (")[0] in result.stderr


def test_reach_writes_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "two_cases.py").write_text("from reach.minimal import CASES\nCASES = [CASES[0], CASES[-1]]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = kvfix("reach", "two_cases", "--markdown", "--json", str(tmp_path / "rows.json"))
    assert result.exit_code == 0
    assert "| IntArgument |" in result.stdout and "recordings" not in result.stdout
    written = json.loads((tmp_path / "rows.json").read_text())
    assert {"device", "torch", "commit", "date", "command"} < written.keys()
    rows = [(r["case"], r["graphs"], r["decode_graphs"], r["recordings"], r["skips"]) for r in written["rows"]]
    assert rows == [("IntArgument", 2, 1, 0, 0), ("StaticControl", 2, 1, 0, 0)]


def test_as_a_module_in_the_working_directory(tmp_path: Path):
    (tmp_path / "mine.py").write_text("factory = 3\n")
    command = [sys.executable, "-m", "fxpass", "print", "mine:factory"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "kvfix: mine:factory is of type int, not a function that returns (callable, args, kwargs)\n"
