"""The figures of docs/benchmarks.md, drawn from what is recorded in benchmarks/results when the site is built.

Each is an SVG within the page, whose text has the color of the page's. Below it stands what it was measured on.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PLACE = re.compile(r"<!-- figure: (\w+) -->")
RESULTS = Path(__file__).parents[2] / "benchmarks/results"
INK = "#0a0b0c"
"""Stands for the color of the page's text, by which it is replaced."""
COLORS = {"eager": "#9aa3ad", "stock": "#5b7fb5", "hand": "#8a6fb0", "kvfix": "#f26b3a", "kvfix-kept": "#f7a27f"}
matplotlib.rcParams |= {
    "svg.fonttype": "none", "svg.hashsalt": "kvfix", "font.family": "sans-serif", "font.size": 11,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip


def figure(name: str) -> str:
    """The Markdown that stands in the place of a comment: the drawing, and a line on how it was measured."""
    file, draw = FIGURES[name]
    result = json.loads((RESULTS / file).read_text())
    drawing = Figure(figsize=(8, 3.2), layout="constrained")
    said = draw(drawing, result)
    written = io.StringIO()
    drawing.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = re.sub(r"\s*\n\s*", " ", written.getvalue()[written.getvalue().index("<svg") :]).replace(INK, "currentColor")
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{said}" ', 1)
    measured = f"{result['device']}, torch {result['torch']}, commit {result['commit']}, {result['date']}"
    return f"<figure>{svg}</figure>\n\n{said} *{measured} ([recorded](../benchmarks/results/{file})).*\n"


def bars(axes: Axes, names: Sequence[str], series: dict[str, Sequence[float]], unit: str, colors: Sequence[str]) -> None:
    """A group of horizontal bars for each name, the first on top, each bar with its value."""
    height = 0.8 / len(series)
    for k, (label, values) in enumerate(series.items()):
        places = [i + (k - (len(series) - 1) / 2) * height for i in range(len(names))]
        drawn = axes.barh(places, values, height * 0.9, color=colors[k], label=label)
        axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=4, fontsize=10)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    legend(axes)


def legend(axes: Axes) -> None:
    """The names of the series in one line above the drawing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderpad=0)


def approaches(result: dict[str, Any], *names: str) -> dict[str, dict[str, Any]]:
    """The rows of some approaches of the first size."""
    rows = {row["approach"]: row for row in result["sizes"][0]["rows"]}
    return {name: rows[name] for name in names if name in rows}


def decode_call(drawing: Figure, result: dict[str, Any]) -> str:
    rows = approaches(result, "toto-ts eager", "toto-ts stock", "fixed_size hand", "toto-ts kvfix")
    keys = {"call": "call_ms", "on the device": "device_ms"}
    series = {label: [median(row[key]) for row in rows.values()] for label, key in keys.items()}
    bars(drawing.subplots(), list(rows), series, "ms, one decode step", [COLORS["kvfix"], COLORS["stock"]])
    return "One decode step of Toto 1.0 in its base configuration, 7 series of 4096 steps: medians."


def compile_times(drawing: Figure, result: dict[str, Any]) -> str:
    rows = approaches(result, "toto-ts stock", "toto-ts kvfix", "toto-ts kvfix-kept")
    keys = {"first process": "cold_s", "second process": "warm_s"}
    series = {label: [median(row[key]) for row in rows.values()] for label, key in keys.items()}
    bars(drawing.subplots(), list(rows), series, "s, compilation and first forecast", [COLORS["stock"], COLORS["kvfix"]])
    return "Compilation and the first forecast, in a process without caches and in the next; kept: with the precompile cache."


def sizes(drawing: Figure, result: dict[str, Any]) -> str:
    first = json.loads((RESULTS / "bench_7x4096-1536.json").read_text())
    found = {s["size"]: {r["approach"]: median(r["forecast_s"]) for r in s["rows"]} for s in first["sizes"] + result["sizes"]}
    ways = {"stock": "toto-ts stock", "hand": "fixed_size hand", "kvfix": "toto-ts kvfix"}
    series = {way: [rows["toto-ts eager"] / rows[name] for rows in found.values()] for way, name in ways.items()}
    bars(drawing.subplots(), list(found), series, "times as fast as eager, whole forecast", [COLORS[way] for way in ways])
    return "Whole forecasts, prefill and what lies outside of the model included, by series x context - horizon."


def llama_shapes(drawing: Figure, result: dict[str, Any]) -> str:
    rows = {(row["model"], row["way"]): row["step_ms"] for row in result["rows"]}
    names = list(dict.fromkeys(row["model"] for row in result["rows"]))
    series = {f"stock {way}" if way != "kvfix" else way: [rows[n, way] for n in names] for way in ("reduce-overhead", "kvfix")}
    bars(drawing.subplots(), names, series, "ms, one decode step", [COLORS["stock"], COLORS["kvfix"]])
    return "A decode step in the shapes of Llama-3.2-1B, bfloat16, batch 1, random weights."


def dynamic_cache(drawing: Figure, result: dict[str, Any]) -> str:
    rows = {(row["name"], row["length"]): row["step_ms"] for row in result["rows"]}
    names = {"static": "StaticCache, reduce-overhead", "kvfix": "DynamicCache, kvfix"}
    lengths = list(dict.fromkeys(row["length"] for row in result["rows"]))
    series = {label: [rows[name, length] for length in lengths] for name, label in names.items()}
    places = [f"{length:,} tokens" for length in lengths]
    bars(drawing.subplots(), places, series, "ms, one decode step", [COLORS["stock"], COLORS["kvfix"]])
    return "A decode step of the Llama of transformers, whose default cache grows by cat."


def products(drawing: Figure, result: dict[str, Any]) -> str:
    panels = drawing.subplots(1, 2, sharey=True)
    for axes, dtype in zip(panels, ("torch.float32", "torch.bfloat16"), strict=True):
        found = [row for row in result["products"] if row["dtype"] == dtype]
        rows = sorted({row["rows"] for row in found})
        for label, key, color in (("kvfix", "kvfix_us", COLORS["kvfix"]), ("cuBLAS", "cublas_us", COLORS["stock"])):
            shares = [median(r["floor_us"] / r[key] for r in found if r["rows"] == n) for n in rows]
            axes.plot([str(n) for n in rows], [100 * share for share in shares], "o-", color=color, label=label)
        axes.set(xlabel=f"rows, {dtype.removeprefix('torch.')}", ylim=(0, 100))
        axes.grid(alpha=0.2)
    panels[0].set_ylabel("% of the bandwidth")
    legend(panels[0])
    return "Products of few rows: how near they come to reading the weights once at 3.35 TB/s; median of the shapes."


def pass_times(drawing: Figure, result: dict[str, Any]) -> str:
    axes, below = drawing.subplots(), [0.0] * len(result["rows"])
    names = [f"{row['layers']} layers" for row in result["rows"]]
    for stage, color in zip(("normal form", "rewrite", "propagate", "split"), ("stock", "kvfix", "hand", "eager"), strict=True):
        values = [row[stage] for row in result["rows"]]
        axes.barh(names, values, left=below, color=COLORS[color], label=stage)
        below = [a + b for a, b in zip(below, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("s, one graph")
    legend(axes)
    return "The pass on a decode graph, by stage."


FIGURES: dict[str, tuple[str, Callable[[Figure, dict[str, Any]], str]]] = {
    "decode_call": ("bench_7x4096-1536.json", decode_call),
    "compile_times": ("bench_warm.json", compile_times),
    "sizes": ("bench_sizes.json", sizes),
    "llama_shapes": ("llama_shapes.json", llama_shapes),
    "dynamic_cache": ("dynamic_cache.json", dynamic_cache),
    "products": ("kernels.json", products),
    "pass_times": ("pass_times.json", pass_times),
}
"""The recorded file of each figure, and the function that draws it and says what it shows."""
