"""The command line: what it prints and records, and one line and exit status 2 for whatever is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import cli_targets
import pytest
from fuzz.mutants import changed
from typer.testing import CliRunner

import fxpass
from fxpass import verify
from fxpass.tools import command_line as cli
from fxpass.tools import figures
from fxpass.tools.command_line import app

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
        "reach",
        "reach reach.minimal --device nonsense",
        "reach no.such.module",
        "reach --show no_such_file",
    ],
)
def test_bad_command_line(arguments: str):
    result = kvfix(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == "" and "Traceback" not in result.stderr


def test_a_wrong_option_is_told_the_nearest_one():
    result = kvfix("explain", "cli_targets:good", "--htm", "x")
    assert result.exit_code == 2 and result.stderr == "kvfix: no option --htm (did you mean '--html'?)\n"


STEPS = """
import sys, torch

@torch.compile(backend="kvfix", options={"compiler": "eager"})
def step(k, p):
    return k[:, :p].%s.sum()

for p in range(2, 2 + int(sys.argv[1])):
    step(torch.rand(2, 8), p)
"""


def test_a_module_is_run_as_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "a folder" / "cli_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "inner.py").write_text(STEPS % "exp()")
    (folder / "run.py").write_text("from . import inner\n")
    monkeypatch.chdir(folder.parent)
    result = kvfix("explain", "-m", "cli_package.run", "3")
    assert result.exit_code == 0 and "    cli_package/inner.py:6  return k[:, :p].exp().sum()\n" in result.stdout
    assert kvfix("explain", "cli_package/run.py", "3").stderr.startswith("kvfix: running cli_package/run.py: ImportError")


@pytest.mark.parametrize(
    "name, said",
    [
        ("no_such.module", "kvfix: cannot import 'no_such.module': ModuleNotFoundError: No module named 'no_such'"),
        ("cli_empty", "kvfix: no module cli_empty.__main__"),
        ("cli_empty.missing", "kvfix: no module cli_empty.missing"),
        ("cli_empty.raises.run", "kvfix: cannot import 'cli_empty.raises.run': ValueError: no"),
    ],
)
def test_a_module_that_cannot_be_run_is_wrong_use(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cli_empty" / "raises").mkdir(parents=True)
    (tmp_path / "cli_empty" / "__init__.py").touch()
    (tmp_path / "cli_empty" / "raises" / "__init__.py").write_text("raise ValueError('no')")
    monkeypatch.chdir(tmp_path)
    result = kvfix("explain", "-m", name)
    assert result.exit_code == 2 and result.stderr.startswith(said) and result.stderr.count("\n") == 1, result.stderr


def test_what_strict_raises_is_told_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "steps.py").write_text(STEPS % "mode(1).values")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVFIX_STRICT", "1")
    result = kvfix("explain", "steps.py", "3")
    assert result.exit_code == 1 and "steps.py:6: read at p: KV101 no rule for aten.mode\n" in result.stderr


def test_print_stages():
    before, after, diff = (kvfix("print", "cli_targets:good", "--stage", s).stdout for s in ("before", "after", "diff"))
    assert "copy_" in before and "index_copy_" not in before
    assert "index_copy_" in after
    assert diff.startswith("--- before\n+++ after\n")
    assert kvfix("print", "cli_targets:keywords").stdout == after


def test_print_of_nothing_says_why():
    result = kvfix("print", "cli_targets:weighted", "--calls", "1", "--stage", "core")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "kvfix: graph 0 has no static part.\n")


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
    path = tmp_path / "rows.json"
    result = kvfix("reach", "two_cases", "--markdown", "--json", str(path))
    assert result.exit_code == 0
    assert "| IntArgument |" in result.stdout and "recordings" not in result.stdout
    written = json.loads(path.read_text())
    assert {"device", "torch", "commit", "date", "command"} < written.keys()
    rows = [(r["case"], r["graphs"], r["decode_graphs"], r["recordings"], r["skips"]) for r in written["rows"]]
    assert rows == [("IntArgument", 2, 1, 0, 0), ("StaticControl", 2, 1, 0, 0)]
    assert kvfix("reach", "--show", str(path), "--markdown").stdout == result.stdout


def test_reach_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One case at a time: a file keeps the rows of the others, and has one row a case."""
    path = str(tmp_path / "rows.json")
    for case in ("Item", "StaticControl", "Item"):
        assert kvfix("reach", "reach.minimal", "--case", case, "--json", path).exit_code == 0
    shown = kvfix("reach", "--show", path, "--markdown").stdout
    assert [line.split("|")[1].strip() for line in shown.splitlines()[2:]] == ["StaticControl", "Item"]
    assert "| 1 position | one |" in shown
    wrong = kvfix("reach", "reach.minimal", "--case", "Nothing")
    assert wrong.exit_code == 2 and "no case Nothing" in wrong.stderr


@pytest.fixture
def one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "one_case.py").write_text("from reach.minimal import CASES\nCASES = CASES[:1]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "one_case"


@pytest.mark.parametrize("asked, compared", [(("--verify", "1"), 2), (("--verify", "0"), 0), ((), 3)])
def test_reach_compares_as_many_calls_as_asked(
    asked: tuple[str, ...], compared: int, one_case: str, monkeypatch: pytest.MonkeyPatch
):
    """The prefill has one call; where nothing is asked for, ``KVFIX_VERIFY`` is."""
    seen: list[int] = []
    stock = verify._Check.__call__
    monkeypatch.setattr(verify._Check, "__call__", lambda self, *a: (seen.append(a[2]), stock(self, *a))[1])
    assert kvfix("reach", one_case, *asked).exit_code == 0
    assert len(seen) == compared


def test_reach_shows_what_the_self_check_finds(one_case: str):
    twin = "return b.call(aten.add.Tensor, steps, b.twin(site.start, site.device))"
    with changed("slots", twin, "return steps"):
        result = kvfix("reach", one_case, "--verify", "2", "--markdown")
    assert result.exit_code == 1 and "KvfixError: kvfix: KV701 graph 1, call 1: it differs" in result.stdout


def install(monkeypatch: pytest.MonkeyPatch, *names: str, kind: str = "bench") -> None:
    """Make ``names`` all that is installed, each the benchmark, or the demo, of `cli_targets`."""
    found = [EntryPoint(name, f"cli_targets:{kind}", f"kvfix_{kind}") for name in names]
    monkeypatch.setattr(cli, "entry_points", lambda group: [e for e in found if e.group == group])


def test_what_is_installed_runs_with_its_own_defaults(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, "mine")
    assert kvfix("bench").stdout == "1x2 3x4 small\n"
    assert kvfix("bench", "--size", "5", "--config", "large").stdout == "5 large\n"
    monkeypatch.delattr(cli_targets, "DEFAULT_SIZES")
    assert "--size" in kvfix("bench").stderr
    assert kvfix("bench", "--show", "file").exit_code == 0


def test_a_demo_is_told_how_many_calls_to_compare(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, "mine", kind="demo")
    assert kvfix("demo", "--verify", "3").stdout == "3\n"
    assert kvfix("demo").stdout == "None\n"
    assert kvfix("demo", "--verify", "-1").exit_code == 2


def test_a_model_is_measured_by_its_own_benchmark(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, "one", "other", kind="model")
    assert kvfix("bench", "--model", "other", "--only", "* eager", "--json", "f").stdout == "* eager f\n"
    wrong = kvfix("bench", "--model", "third")
    assert wrong.exit_code == 2 and wrong.stderr == "kvfix: no model 'third'; installed: one, other\n"
    monkeypatch.setattr(cli, "entry_points", lambda group: [EntryPoint("far", "of_a_checkout:run", group)])
    missing = kvfix("bench", "--model", "far")
    assert missing.exit_code == 2 and missing.stderr == "kvfix: model 'far' is not here: No module named 'of_a_checkout'\n"


def test_one_of_several_has_to_be_named(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, "mine", "yours")
    assert kvfix("bench", "--name", "yours").exit_code == 0
    result = kvfix("bench")
    assert result.exit_code == 2 and result.stderr == "kvfix: which bench? --name says it; installed: mine, yours\n"
    assert kvfix("demo").stderr == "kvfix: which demo? --name says it; installed: none\n"


def test_the_backend_knows_no_model_by_name():
    names = {entry.name for kind in ("demo", "bench", "model") for entry in cli.entry_points(group=f"kvfix_{kind}")}
    sources = [path.read_text().lower() for path in Path(fxpass.__file__).parent.rglob("*.py")]
    assert names and not [name for name in names for source in sources if name in source]


def test_recorded_figures_name_the_commit_and_what_differs_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*arguments: str) -> str:
        setting = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *setting, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(figures, "HERE", tmp_path)
    assert figures.setting()["commit"] == "unknown"
    monkeypatch.setenv("KVFIX_COMMIT", "1234567")
    assert figures.setting()["commit"] == "1234567"

    code, recorded = tmp_path / "code.py", tmp_path / "benchmarks/results/figures.json"
    recorded.parent.mkdir(parents=True)
    for path in (code, recorded):
        path.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "--short", "HEAD")
    recorded.write_text("2")
    (tmp_path / "new.py").write_text("1")
    assert figures.setting()["commit"] == commit
    code.write_text("2")
    assert figures.setting()["commit"] == f"{commit}-dirty"


def test_as_a_module_in_the_working_directory(tmp_path: Path):
    (tmp_path / "mine.py").write_text("factory = 3\n")
    command = [sys.executable, "-m", "fxpass", "print", "mine:factory"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "kvfix: mine:factory is of type int, not a function that returns (callable, args, kwargs)\n"
