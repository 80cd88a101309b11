"""What `kvfix explain` says: the user's lines, chains, costs, what is left, what stock does, a script; exit codes, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import fxpass
from fxpass import Report, Site
from fxpass.report.explanation import Explanation
from fxpass.report.memory_sizes import in_words
from fxpass.report.site import Cost
from fxpass.tools.command_line import app
from fxpass.tools.stock import stock_of_script

SCRIPT = """
import sys, torch
k = torch.zeros(2, 16, 4)
def step(k, x, p):
    k[:, p : p + 1] = x
    return FINISH
compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
for p in range(int(sys.argv[1])):
    compiled(k, torch.ones(2, 1, 4), p)
"""
SUM, MODE = "k[:, : p + 1].sum(1)", "k[:, : p + 1].mode(1).values"


def explain(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["explain", *arguments])


def script(folder: Path, finish: str) -> str:
    path = folder / "script.py"
    path.write_text(SCRIPT.replace("FINISH", finish))
    return str(path)


def test_a_callable_that_is_rewritten() -> None:
    result = explain("cli_targets:good")
    assert result.exit_code == 0
    said = result.stdout
    assert "write of rows: f32[8, 2], dim 0: rewritten" in said and "self.rows[start : start + 1] = x" in said
    assert "length[0] = pos -> pos + 1 (tests/cli_targets.py:23)" in said
    assert "reads 64 bytes a step in place of 24 bytes, beside a mask of 8 bytes" in said
    assert "KV302 another graph of the same code, since a guard does not hold: length[0] == 1" in said
    assert "kvfix: 2 graphs, 0 breaks, 1 recompilation" in said and "stock" not in said


def test_stock_makes_the_same_calls() -> None:
    said = explain("cli_targets:good", "--compare").stdout
    assert "kvfix: 2 graphs, 0 breaks, 1 recompilation, 0 recordings\nstock torch.compile: 3 graphs, 1 break" in said


def test_functions_left_to_eager_are_counted() -> None:
    """Stock Dynamo gives up on a loop over layers, in which it counts no break."""
    said = explain("cli_targets:loop", "--compare").stdout
    assert "kvfix: 2 graphs, 0 breaks, 1 recompilation, 0 recordings\nstock torch.compile: " in said
    assert "2 functions left to eager" in said


def test_stock_runs_the_same_script(tmp_path: Path) -> None:
    """In a process of its own, where "kvfix" is the name of what kvfix hands its graphs to."""
    path = script(tmp_path, SUM)
    text = Path(path).read_text().replace("def step(k, x, p):", "def step(k, x, t):\n    p = int(t[0].item())")
    Path(path).write_text(text.replace("(2, 1, 4), p)", "(2, 1, 4), torch.tensor([p]))"))
    found = json.loads(explain("--json", "--compare", path, "4").stdout)
    assert (found["kvfix"]["breaks"], found["stock"]["breaks"]) == (0, 1)
    assert found["kvfix"]["recordings"] == 0 and found["kvfix"]["launches of kernels in a call"] is None


def test_stock_of_a_script_that_fails_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    assert stock_of_script(script(tmp_path, SUM), ["1"], False) == {"error": "ended with exit status 1: silent"}


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_a_module_with_parameters() -> None:
    """Without gradients, unless they are asked for."""
    assert explain("cli_targets:weighted").exit_code == 0
    result = explain("cli_targets:weighted", "--grad")
    assert result.exit_code == 1 and "KV001 grad is enabled" in result.stdout


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("finish, code, id", [(SUM, 0, ""), (MODE, 1, "KV101")])
def test_a_script(finish: str, code: int, id: str, tmp_path: Path) -> None:
    result = explain(script(tmp_path, finish), "3")
    assert result.exit_code == code and id in result.stdout and f"return {finish}" in result.stdout


@pytest.mark.parametrize("end, said", [("sys.exit(3)", "SystemExit: 3"), ("1 / 0", "ZeroDivisionError: division by zero"),
                                       ("raise KeyboardInterrupt", "KeyboardInterrupt")])  # fmt: skip
def test_a_script_that_ends_badly(end: str, said: str, tmp_path: Path) -> None:
    """What has been until then is explained all the same."""
    path = script(tmp_path, SUM)
    Path(path).write_text(Path(path).read_text() + f"\n{end}\n")
    result = explain(path, "3")
    assert result.exit_code == 1 and "write of k" in result.stdout
    assert result.stderr.splitlines()[-1].startswith(f"kvfix: running {path}: {said} ({path}:")


def test_a_script_that_is_no_python(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text("import torch\ndef f(:\n")
    result = explain(str(path))
    assert result.exit_code == 1 and result.stderr == f"kvfix: running {path}: SyntaxError: invalid syntax ({path}:2)\n"


def test_what_is_written_past_python_is_no_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path, SUM)
    Path(path).write_text(Path(path).read_text() + "\nimport os\nos.write(1, b'written')\nos.system('echo echoed')\n")
    assert not json.loads(explain("--json", path, "3").stdout)["left"]
    out, err = capfd.readouterr()
    assert not out and "written" in err and "echoed" in err


def test_breaks_before_any_graph(tmp_path: Path) -> None:
    path = script(tmp_path, SUM)
    text = Path(path).read_text().replace("    k[:, p : p + 1] = x\n", "    print('a step')\n    k[:, p : p + 1] = x\n")
    Path(path).write_text(text)
    said = explain(path, "3").stdout
    assert said.count("KV301 the graph breaks at") == 1 and "script.py:5" in said
    assert len(json.loads(explain("--json", path, "3").stdout)["breaks"]) == 1


@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_json(tmp_path: Path) -> None:
    path = script(tmp_path, MODE)
    Path(path).write_text(Path(path).read_text() + "\nprint('its own output')\n")
    result = explain("--json", path, "3")
    found = json.loads(result.stdout)  # and nothing else
    assert "its own output" in result.stderr
    assert result.exit_code == 1 and found["left"]
    read = next(site for site in found["graphs"][-1]["sites"] if site["kind"] == "read")
    assert (read["id"], read["buffer"], read["code"]) == ("KV101", "k", f"return {MODE}")
    assert read["chain"][0].startswith("p = s") and read["cost"]["now"] == read["cost"]["before"]
    assert found["graphs"][-1]["again"] == "p == 0"


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["no_such_script.py"], 2, "no file no_such_script.py"),
        (["cli_targets:good", "more"], 2, "only a script takes arguments"),
        (["tests/cli_targets.py:good"], 2, "names a file: write the module, tests.cli_targets:good"),
        (["SCRIPT", "0"], 1, "compiled no graph"),
        (["SCRIPT", "x"], 1, "ValueError"),
    ],
)
def test_what_goes_wrong(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    path = script(tmp_path, SUM)
    result = explain(*(path if a == "SCRIPT" else a for a in arguments))
    assert result.exit_code == code and result.stdout == ""
    assert said in result.stderr and result.stderr.startswith("kvfix: ") and result.stderr.count("\n") == 1


def test_layers_that_are_alike_are_counted() -> None:
    from rich.console import Console

    from fxpass.report.explanation_text import rendered

    sites = [Site("read", f"layers.{i}.k", 1, "s0", "/a/b/m.py:3", "rewritten", cost=Cost(8, 64, 16)) for i in range(12)]
    explanation = Explanation([Report("graph 0", sites)])
    console = Console(width=120)
    with console.capture() as captured:
        console.print(rendered(explanation))
    assert "read of layers.0.k: , dim 1, and 11 like it: rewritten" in captured.get()
    assert explanation.bytes_read() == (96, 768, 16)
    assert not explanation.is_left


def test_all_that_concerns_a_graph_has_an_id() -> None:
    report = Report("graph 0", unfit="KV001 a", unbuffered="KV201 b", faults=["_compile: KeyError: 'c'"], notes=["KV403 d"])
    report.outside, report.ended, report.compile_id = ["KV210 e"], "KV301 f", "0/1"
    explanation = Explanation([report], {"0/1": "p == 3", "0/2": ""})
    ids = ["KV302", "KV602", "KV001", "KV201", "KV301", "KV210", "KV403"]
    assert [text.partition(" ")[0] for text in explanation.why(report)] == ids
    assert "its hook _compile failed" in explanation.why(report)[1] and explanation.is_left


def test_launches_are_said_where_there_are_some() -> None:
    from rich.console import Console

    from fxpass.report.explanation_text import rendered
    from fxpass.tools.counting import Counts, Launches
    from fxpass.tools.running import as_dict

    console = Console(width=200)
    with console.capture() as captured:
        for launches in (None, Launches(graphs=1, kernels=9)):
            console.print(rendered(Explanation([], counts=as_dict(Counts(graphs=2, breaks=3), launches))))
    first, second = captured.get().splitlines()
    assert first.startswith("kvfix: 2 graphs, 3 breaks, 0 recompilations, ") and "launches" not in first
    assert second.endswith("1 launch of CUDA graphs in a call, 9 launches of kernels in a call")


@pytest.mark.parametrize("size, said", [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 1024**2, "3.0 MiB")])
def test_in_words(size: int, said: str) -> None:
    assert in_words(size) == said


@torch.no_grad()
@pytest.mark.parametrize("row", [lambda c, p: c[:, p], lambda c, p: c.select(1, p // 2), lambda c, p: c.mT[p // 2]])
def test_the_cost_of_one_row(row: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    """A row that is picked has a dim less than what it is picked from."""

    def step(c: torch.Tensor, x: torch.Tensor, p: int) -> torch.Tensor:
        c[:, p : p + 1] = x
        return c[:, : p + 1].sum(1) + row(c, p)

    compiled, cache = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.zeros(2, 16)
    for p in range(2, 5):
        compiled(cache, torch.rand(2, 1), p)
    report = fxpass.reports()[-1]
    assert not report.unfit and [s.cost.now for s in report.sites if s.kind == "read" and s.cost] == [128, 8]


W = torch.linspace(-1, 1, 16).view(4, 4)
READS: dict[str, tuple[Callable[[torch.Tensor, int], torch.Tensor], int, str]] = {
    # a window of 32 rows, of 4 floats each; or all 200, and why
    "filled rows": (lambda c, p: (c[:, :p] @ W).sum(1), 32, ""),
    "all but the first": (lambda c, p: (c[:, 2:p] @ W).sum(1), 32, ""),
    "beside a number of rows that stays": (lambda c, p: (c[:, :p] @ W).sum(1) + c[:, p - 1 : p].sum(1), 33, ""),
    "what is behind a position": (lambda c, p: (c[:, p:] @ W).sum(1), 200, "behind a position"),
    "a window in pairs": (lambda c, p: (c[:, : p // 2 * 2].unflatten(1, (-1, 2)) @ W).sum((1, 2)), 200, "every window"),
}


@torch.no_grad()
@pytest.mark.parametrize("name", READS)
def test_what_is_read_of_a_long_cache(name: str) -> None:
    step, rows, why = READS[name]
    compiled, cache = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.rand(1, 200, 4)
    for p in (20, 21, 22):
        torch.testing.assert_close(compiled(cache, p), step(cache, p))
    said = [note for note in fxpass.reports()[-1].notes if note.startswith("KV406")]
    assert Explanation(fxpass.reports()).bytes_read()[1] == rows * 4 * 4
    assert [why in text and "test_explanation.py:" in text for text in said] == [True] * bool(why)
