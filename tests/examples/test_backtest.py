"""examples/backtest.py on a few origins: what it says, what it plots, and when it fails."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "backtest.py"
TINY = ("--device", "cpu", "--origins", "4", "--context", "64", "--horizon", "12", "--compiler", "eager")


def run(folder: Path, *options: str, toto_compile: str) -> tuple[str, dict]:
    """What the script prints, and the figures that it writes; the plot must be a PNG."""
    plot, figures = folder / "plot.png", folder / "figures.json"
    command = [sys.executable, str(SCRIPT), *TINY, "--plot", str(plot), "--json", str(figures), *options]
    environment = {**os.environ, "TOTO_COMPILE": toto_compile}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") and plot.stat().st_size > 20_000
    return done.stdout, json.loads(figures.read_text())


def test_both_passes_agree(tmp_path: Path):
    shown, figures = run(tmp_path, "--random", toto_compile="1")
    assert "weights: random, untrained" in shown
    assert float(re.search(r"^largest relative MAE: (\S+)", shown, re.M)[1]) < 1e-6
    assert [row["series"] for row in figures["differences"]] == ["S&P 500", "NASDAQ", "VIX", "all"]
    assert all(row["relative_mae"] < 1e-6 for row in figures["differences"])
    assert re.search(r"^recompiles after the first 2 forecasts: 0$", shown, re.M)
    assert re.search(r"^recompile warnings: 0$", shown, re.M)
    assert re.search(r"^CUDA graph skips: 0 \(n/a", shown, re.M)
    assert (figures["graphs"], figures["breaks"]) == (2, 0)
    assert [len(times["each_s"]) for times in figures["times"].values()] == [4, 4]


def test_eager_alone_with_trained_weights(tmp_path: Path):
    shown, figures = run(tmp_path, "--train-steps", "3", toto_compile="0")
    assert "weights: self-trained, 3 steps" in shown and "not the published weights" in shown
    assert "TOTO_COMPILE=0: the eager pass alone" in shown
    assert "differences" not in figures and list(figures["times"]) == ["eager"]
    naive = [row["naive_mae"] for row in figures["errors"]]
    assert len(naive) == 8 and all(value > 0 for value in naive)


def test_what_is_wrong_is_said(monkeypatch, capsys):
    """A relative MAE at the limit in one series alone, one recompilation, one skip: a sentence each."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import backtest

    expected = torch.rand(4, 3, 12, dtype=torch.float64) + torch.tensor([2500.0, 7000.0, 15.0])[:, None]
    found = expected * (1 + 1.1e-6 * torch.tensor([0.0, 0.0, 1.0])[:, None])
    apart = backtest.report.differences(backtest.NAMES, found, expected)
    assert apart[-1]["relative_mae"] < 1e-7
    options = argparse.Namespace(cuda_graphs=True)
    clean = {"graphs": 2, "breaks": 0, "steady_recompiles": 0, "recompile_warnings": 0, "cudagraph_skips": 0}
    clean["warnings"] = []
    assert backtest.check(apart, clean, options) == [
        "kvfix's forecasts differ from eager's by a relative MAE of 1.1e-06."
    ]
    apart = backtest.report.differences(backtest.NAMES, expected, expected)
    assert backtest.check(apart, clean, options) == []
    seen = {**clean, "steady_recompiles": 1, "recompile_warnings": 1, "cudagraph_skips": 1}
    assert len(backtest.check(apart, seen, options)) == 3
    assert "CUDA graph skips: 1\n" in capsys.readouterr().out
    apart = backtest.report.differences(backtest.NAMES, expected * float("nan"), expected)
    assert "relative MAE of inf" in backtest.check(apart, clean, options)[0]


def test_wrong_values_are_named():
    command = [sys.executable, str(SCRIPT), *TINY]
    for extra, environment, sentence in (
        (("--context", "66"), {}, "--context must be a multiple of the patch"),
        ((), {"TOTO_COMPILE": "yes"}, "TOTO_COMPILE is 0 or 1, not 'yes'"),
    ):
        done = subprocess.run(
            [*command, *extra], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
        )
        assert done.returncode == 2 and sentence in done.stderr
