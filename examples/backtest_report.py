"""What backtest.py makes of its forecasts: errors and differences, tables, and a plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

INK, ONE_DAY, PATHS, TIMES = "#30363d", "#d9480f", "#1c7ed6", ("#868e96", "#2b8a3e")
BEFORE = 40  # days shown before the first origin
console = Console(width=100, highlight=False)


def errors(names: Sequence[str], forecasts: Tensor, truth: Tensor, naive: Tensor) -> list[dict[str, Any]]:
    """MAE and RMSE of the forecasts and of the naive ones, a row a series and one for all: one day ahead, then all days.

    The tensors are (origins, series, horizon). The ratio of the row for all is the mean of the ratios of the series.
    """
    rows = []
    for ahead in (1, truth.shape[-1]):
        for which, name in [*enumerate(names), (slice(None), "all")]:
            off, by = ((made - truth)[:, which, :ahead] for made in (forecasts, naive))
            row = {"ahead": f"{ahead} day{'s' * (ahead > 1)}", "series": name}
            row |= {"mae": off.abs().mean().item(), "rmse": off.square().mean().sqrt().item()}
            row |= {"naive_mae": by.abs().mean().item(), "naive_rmse": by.square().mean().sqrt().item()}
            row["ratio"] = row["mae"] / row["naive_mae"]
            rows.append(row)
        rows[-1]["ratio"] = statistics.mean(row["ratio"] for row in rows[-4:-1])
    return rows


def differences(names: Sequence[str], found: Tensor, expected: Tensor) -> list[dict[str, Any]]:
    """Mean and largest difference, absolute and relative to the mean absolute value, a row a series and one for all."""
    rows = []
    for which, name in [*enumerate(names), (slice(None), "all")]:
        off, size = (found - expected)[:, which].abs(), expected[:, which].abs().mean().item()
        row = {"series": name, "mae": off.mean().item(), "max": off.max().item()}
        rows.append({**row, "relative_mae": row["mae"] / size, "relative_max": row["max"] / size})
    return rows


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; numbers are in the columns whose first row ends in a digit."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, example in zip(head, rows[0], strict=True):
        made.add_column(name, justify="right" if example[-1].isdigit() and " " not in example else "left")
    for row in rows:
        made.add_row(*row)
    console.print(f"\n{title}")
    console.print(made)


def print_errors(rows: Sequence[Mapping[str, Any]]) -> None:
    """Errors of the model and of the naive forecast."""
    head = ["ahead", "series", "MAE", "RMSE", "naive MAE", "naive RMSE", "MAE / naive MAE"]
    keys = ("mae", "rmse", "naive_mae", "naive_rmse", "ratio")
    body = [[row["ahead"], row["series"], *(f"{row[key]:.2f}" for key in keys)] for row in rows]
    table("Forecast errors in points of the index (naive: the last close, repeated)", head, body)
    print('A ratio above 1 is worse than naive. "all" pools the points; its ratio is the mean of the three.')


def print_differences(rows: Sequence[Mapping[str, Any]]) -> None:
    """How far kvfix is from eager."""
    keys = ("mae", "max", "relative_mae", "relative_max")
    body = [[row["series"], *(f"{row[key]:.1e}" for key in keys)] for row in rows]
    table("kvfix against eager, all forecasts", ["series", "MAE", "max", "relative MAE", "relative max"], body)
    print("Relative: to the mean absolute value of eager's forecasts.")


def print_times(times: Mapping[str, Mapping[str, float]]) -> None:
    """Wall times of each pass."""
    keys = ("first_s", "steady_median_s", "total_s")
    body = [[name, *(f"{each[key]:.4f}" for key in keys)] for name, each in times.items()]
    table("Wall time, seconds", ["pass", "first forecast", "median of the steady ones", "all forecasts"], body)


def draw(
    path: str,
    title: str,
    dates: Any,
    closes: Any,
    origins: range,
    forecasts: Mapping[str, Any],
    seconds: Mapping[str, Sequence[float]],
) -> None:
    """Save a PNG: a panel a series, with its closes and forecasts, and a panel with the times of every pass."""
    figure = Figure(figsize=(11, 13), layout="constrained", dpi=110)
    panels = figure.subplots(len(forecasts) + 1, 1, height_ratios=[1.0] * len(forecasts) + [1.15])
    for panel, close, (name, forecast) in zip(panels[:-1], closes, forecasts.items(), strict=True):
        draw_series(panel, dates, close, origins, forecast)
        decorate(panel, name)
    panels[0].legend(frameon=False, loc="best")
    draw_times(panels[-1], dates[[day - 1 for day in origins]], seconds)
    decorate(panels[-1], "Time of each forecast, by its origin")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)
    figure.savefig(path, format="png")


def draw_series(panel: Axes, dates: Any, closes: Any, origins: range, forecasts: Any) -> None:
    """One series: its closes, what was forecast one day ahead, and some whole forecasts, one after the other."""
    horizon = forecasts.shape[-1]
    shown = slice(max(origins[0] - BEFORE, 0), origins[-1] + horizon)
    panel.plot(dates[shown], closes[shown], color=INK, linewidth=1.3, label="close")
    for i in range(0, len(origins), -(-horizon // origins.step)):
        days = slice(origins[i] - 1, origins[i] + horizon)
        label = f"forecast of {horizon} days, from some of the origins" if i == 0 else None
        panel.plot(dates[days], [closes[origins[i] - 1], *forecasts[i]], color=PATHS, linewidth=1.4, label=label)
    label = "forecast one day ahead"
    panel.plot(dates[list(origins)], forecasts[:, 0], "o", color=ONE_DAY, markersize=3.2, label=label)


def draw_times(panel: Axes, days: Any, seconds: Mapping[str, Sequence[float]]) -> None:
    """The time of every forecast in every pass; on a logarithmic axis if one is far above the others."""
    for (name, each), color in zip(seconds.items(), TIMES[: len(seconds)], strict=True):
        panel.plot(days, [1e3 * s for s in each], "o-", color=color, markersize=3.2, linewidth=1.2, label=name)
    every = sorted(s for each in seconds.values() for s in each)
    if every[-1] > 10 * every[len(every) // 2]:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        first = (days[0], 1e3 * list(seconds.values())[-1][0])
        panel.annotate("first forecast", first, (8, -3), textcoords="offset points")
    else:
        panel.set_ylim(bottom=0, top=1.25e3 * every[-1])
    panel.set_ylabel("ms")
    panel.legend(frameon=False, ncols=2, loc="upper right")


def decorate(panel: Axes, title: str) -> None:
    """A title, readable dates, a light grid, and no frame on the right and above."""
    panel.set_title(title, loc="left", fontweight="bold")
    locator = AutoDateLocator()
    panel.xaxis.set_major_locator(locator)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panel.margins(x=0.015)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
