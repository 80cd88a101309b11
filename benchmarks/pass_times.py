"""How long kvfix itself takes for a decode graph, by stage and number of layers: ``python benchmarks/pass_times.py``.

The model is ours, with the cache of the published package, in its public base configuration but narrow: only the number of
ops counts. Dynamo's trace and the compilation of the parts are not in it. Each number of layers is measured three times, the
fastest of each stage counts. ``--json FILE`` writes the figures. The exit status is 1 if twelve layers take more than a second.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from dataclasses import replace

import torch

import fxpass
from fxpass.tools import figures
from toto_model import Toto, TotoConfig, TotoForecaster

LAYERS = (6, 12, 24, 48)
REPEATS = 3
MOST = {12: 1.0}
"""Seconds that the pass may take with so many layers."""


def measure(layers: int) -> dict[str, float]:
    """Seconds of each stage for the decode graph of a model of ``layers`` layers, and its nodes before the rewrite."""
    torch._dynamo.reset()
    fxpass.reset()
    config = replace(TotoConfig.tiny(), num_layers=layers, spacewise_every_n_layers=layers)
    model = Toto(config).eval().model
    model.forward = torch.compile(model.forward, backend="kvfix", options={"compiler": "eager", "strict": True})
    series = torch.randn(1, 3, 8 * config.patch_size)
    stamps, steps = torch.zeros_like(series, dtype=torch.int), torch.ones(series.shape[:2], dtype=torch.int)
    TotoForecaster(model).generate_mean(series, 3 * config.patch_size, stamps, steps, use_kv_cache=True)
    report = fxpass.reports()[-1]
    assert report.rewritten and not report.refused
    return {"ops": report.before.count("\n"), **report.timings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    options = parser.parse_args()
    measure(2)  # imports and first calls
    rows = []
    for layers in LAYERS:
        runs = [measure(layers) for _ in range(REPEATS)]
        row = {name: min(run[name] for run in runs) for name in runs[0]}
        pass_s = row["rewrite"] + row["propagate"] + row["split"]
        rows.append({"layers": layers, **row, "pass": pass_s, "all": pass_s + row["normal form"]})
        shown = "  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items())
        print(f"{shown}  us/op {1e6 * rows[-1]['all'] / row['ops']:.0f}", flush=True)
    if options.json:
        figures.write_figures(options.json, {"command": "python benchmarks/pass_times.py", "rows": rows})
    slow = [row for row in rows if row["pass"] > MOST.get(row["layers"], float("inf"))]
    for row in slow:
        print(f"{row['layers']} layers: {row['pass']:.2f} s, for which {MOST[row['layers']]} s are allowed", file=sys.stderr)
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()
