"""``kvfix bench``: sizes, choice of approaches, ratios, a run on the CPU, and that the pages show what was recorded."""

from __future__ import annotations

import json
import pathlib
from functools import partial
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from fxpass.tools.command_line import app
from fxpass.tools.figures import command
from toto_model.bench import APPROACHES, chosen
from toto_model.bench.approaches import REFERENCE, YARDSTICK
from toto_model.bench.clocks import FirstLaunch, Plain
from toto_model.bench.sizes import ForecastSize
from toto_model.bench.table import ratios, spread, tables

ROOT = pathlib.Path(__file__).parents[2]
RECORDED = ROOT / "benchmarks/results/bench_7x4096-1536.json"


@pytest.mark.parametrize("text", ["7x4096-1536", "32x2048-512x8"])
def test_sizes_are_read_as_they_are_written(text: str) -> None:
    assert str(ForecastSize.parse(text)) == text


@pytest.mark.parametrize("text", ["", "7x4096", "7-4096-1", "7x4096-1536x"])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="7x4096-1536"):
        ForecastSize.parse(text)


def test_the_reference_is_always_among_the_chosen() -> None:
    assert chosen([]) == list(APPROACHES)
    assert chosen(["* hand"]) == [REFERENCE, YARDSTICK]
    with pytest.raises(ValueError, match="there are toto-ts eager"):
        chosen(["* hands"])


def test_ratios_are_of_medians_and_leave_out_what_is_missing() -> None:
    rows = [
        {"approach": "toto-ts eager", "forecast_s": [6.0, 5.0, 100.0]},
        {
            "approach": "toto-ts kvfix",
            "forecast_s": [2.0, 1.0, 2.0],
            "call_ms": [3.0],
            "cold_s": [9.0, 10.0, 90.0],
            "warm_s": [2.0],
        },
        {"approach": "fixed_size hand", "error": "RuntimeError", "call_ms": [1.0]},
    ]
    assert ratios(rows, None) == {"forecast, eager / kvfix": 3.0, "compile, warm / cold, toto-ts kvfix": 0.2}
    assert spread([4.0]) == 0 and spread([9.0, 10.0, 11.0]) == pytest.approx(0.1)


def test_the_time_until_a_launch_is_that_of_a_call_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda **_: SimpleNamespace(record=lambda: None))
    launches = FirstLaunch().watch()
    launch = partial(torch.cuda.CUDAGraph.replay, None)  # as it is kept with a recording
    clock = Plain(lambda calls: [launch() for _ in range(calls)], gpu=True, launches=launches)
    for calls in (0, 1, 2, 0):
        clock(calls)
    assert len(clock.launch_ms) == 2 and 0 < max(clock.launch_ms) < max(clock.host_ms)
    rows = [{"approach": "toto-ts eager"}, {"approach": "toto-ts kvfix", "launch_ms": clock.launch_ms}]
    assert [c.header for c in tables(rows)[0].columns][-3:] == ["host ms", "launch ms", "device ms"]
    assert "launch ms" not in [c.header for c in tables(rows[:1])[0].columns]


def test_the_command_is_kept_without_where_its_figures_went() -> None:
    assert command(["bench", "--json", "/tmp/x", "--only", "toto-ts *"]) == "kvfix bench --only 'toto-ts *'"
    assert command(["bench", "--json=/tmp/x"]) == "kvfix bench"


def test_the_page_shows_the_recorded_tables() -> None:
    shown = CliRunner().invoke(app, ["bench", "--show", str(RECORDED)])
    assert shown.exit_code == 0
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert "\n".join(lines[2:]) in page
    recorded = json.loads(RECORDED.read_text())
    assert recorded["command"] in page and "H100" in recorded["device"] and recorded["torch"].startswith("2.11")


@pytest.mark.parametrize("name", ["bench_7x4096-1536", "bench_sizes"])
def test_the_page_shows_the_sizes(name: str) -> None:
    recorded = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
    page = (ROOT / "docs/benchmarks.md").read_text()
    for result in recorded["sizes"]:
        ours = next(row for row in result["rows"] if row["approach"] == "toto-ts kvfix")
        forecast, call = result["ratios"]["forecast, eager / kvfix"], median(ours["call_ms"])
        assert f"| {result['size']} | {forecast:.2f} | {call:.3g} |" in page
        assert f" | {ours['core_ms']:.3g} | {result['ratios']['peak memory, kvfix / hand edit']:.2f} |" in page
    assert recorded["command"] in page


def test_the_pages_say_what_was_recorded() -> None:
    """Figures that stand in sentences: launches and the floor, and what a first call takes with a cache that grows."""
    recorded = json.loads(RECORDED.read_text())["sizes"][0]
    rows = {row["approach"]: row for row in recorded["rows"]}
    launches = rows["toto-ts stock"]["other_launches"]
    page = " ".join((ROOT / "docs/benchmarks.md").read_text().split())
    assert f"breaks the graph {rows['toto-ts stock']['breaks']} times and launches {launches} kernels" in page
    assert rows["toto-ts kvfix"]["other_launches"] == 1 and "one recording and one other launch" in page
    assert f"is {recorded['ratios']['decode call on the device, kvfix / floor']:.2f} times what reading" in page
    grown = json.loads((ROOT / "benchmarks/results/dynamic_cache.json").read_text())["rows"]
    first, static = (next(row["cold_s"] for row in grown if row["name"] == name) for name in ("kvfix", "static"))
    assert f"{first:.0f} s for {static:.0f} (same file)" in (ROOT / "docs/compared.md").read_text()


def test_readme_shows_what_was_recorded() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = {row["approach"]: row for row in json.loads(RECORDED.read_text())["sizes"][0]["rows"]}
    for name, said in (("stock", "stock `torch.compile`"), ("kvfix", "kvfix")):
        row = rows[f"toto-ts {name}"]
        times = " | ".join(f"{median(row[time]):.3g}" for time in ("forecast_s", "call_ms", "device_ms"))
        assert f"| {said} | {times} | {row['graphs']} | {row['breaks']} | {median(row['cold_s']):.3g} |" in readme
        call = f"{median(row['call_ms']):.3g}" if name == "stock" else f"{median(row['call_ms']):.2f}"
        assert f"{call} ms" in (ROOT / "docs/compared.md").read_text()
    calls = [f"{median(rows[f'toto-ts {name}']['call_ms']):.3g}" for name in ("kvfix", "eager", "stock")]
    assert "takes {} ms on an H100, where eager takes {} and stock `torch.compile` {}".format(*calls) in readme


def test_the_page_shows_the_cold_times() -> None:
    """The ratio of each run, and the fastest and slowest compilation of both."""
    page = " ".join((ROOT / "docs/benchmarks.md").read_text().split())
    runs = [
        json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        for name in ("bench_warm", "bench_cold")
    ]
    first, second = (run["sizes"][0]["ratios"]["cold compile, kvfix / stock"] for run in runs)
    rows = [row for run in runs for row in run["sizes"][0]["rows"]]
    ours, stock = (
        [s for r in rows if r["approach"] == f"toto-ts {how}" for s in r["cold_s"]] for how in ("kvfix", "stock")
    )
    assert f"took {first:.2f} times" in page and f"and {second:.2f} in another run" in page
    assert f"{min(ours):.0f} to {max(ours):.0f} s for {min(stock):.0f} to {max(stock):.0f} s" in page
    assert runs[1]["command"] in page


def test_arguments_that_are_wrong_end_with_status_2(tmp_path: pathlib.Path) -> None:
    for arguments in (
        ["--size", "7"],
        ["--only", "none"],
        ["--config", "huge"],
        ["--show", str(tmp_path / "none.json")],
    ):
        assert CliRunner().invoke(app, ["bench", "--device", "cpu", *arguments]).exit_code == 2


def test_a_run_on_the_cpu(tmp_path: pathlib.Path) -> None:
    """Eager, kvfix and the hand edit, each in its process: the same forecast, and all that a CPU can tell."""
    path = tmp_path / "found.json"
    line = (
        "bench --device cpu --config tiny --layers 2 --size 1x64-32 --rounds 2 --compiler eager --no-warm --compiles 2"
    )
    only = ("toto-ts kvfix", "*hand")
    done = CliRunner().invoke(
        app, [*line.split(), *(word for name in only for word in ("--only", name)), "--json", str(path)]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())
    (result,) = found["sizes"]
    rows = {row["approach"]: row for row in result["rows"]}
    assert list(rows) == ["toto-ts eager", "toto-ts kvfix", "fixed_size hand"]
    for name in ("toto-ts kvfix", "fixed_size hand"):
        assert rows[name]["relative_mae"] < 1e-6
        assert len(rows[name]["forecast_s"]) == 2 and len(rows[name]["call_ms"]) == 2 * 3
        assert rows[name]["breaks"] == 0
        assert len(rows[name]["cold_s"]) == (2 if name == "toto-ts kvfix" else 1)
    assert (rows["toto-ts kvfix"]["graphs"], rows["fixed_size hand"]["graphs"]) == (2, 3)
    assert "toto-ts kvfix" in done.stdout
