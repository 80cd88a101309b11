"""What the benchmark found, as two tables: times with their ratios, and counts with differences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from toto_model.bench.approaches import KEPT, KVFIX, PUBLISHED, REFERENCE, YARDSTICK

Row = dict[str, Any]


def median(row: Row, name: str) -> float | None:
    """The median of the measurements called ``name``, None where there are none."""
    return statistics.median(row[name]) if row.get(name) else None


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, in relation to the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def ratios(rows: Sequence[Row], floor: Row | None) -> dict[str, float]:
    """The ratios that matter, by what they say; those that lack a row are left out."""
    by_name = {row["approach"]: row for row in rows if not row.get("error")}
    ours, eager = by_name.get(f"{PUBLISHED} {KVFIX}"), by_name.get(REFERENCE.name)
    kept = by_name.get(f"{PUBLISHED} {KEPT}")
    stock, hand = by_name.get(f"{PUBLISHED} stock"), by_name.get(YARDSTICK.name)
    wanted = [
        ("forecast, eager / kvfix", eager, ours, "forecast_s"),
        ("decode call, kvfix / hand edit", ours, hand, "call_ms"),
        ("decode call on the device, kvfix / hand edit", ours, hand, "device_ms"),
        ("decode call on the host, kvfix / hand edit", ours, hand, "host_ms"),
        ("decode call until the launch, kvfix / hand edit", ours, hand, "launch_ms"),
        ("prefill, kvfix / stock", ours, stock, "prefill_ms"),
        ("cold compile, kvfix / stock", ours, stock, "cold_s"),
        *(
            (f"compile, warm / cold, {row['approach']}", {"x": row.get("warm_s")}, {"x": row.get("cold_s")}, "x")
            for row in (ours, kept)
            if row
        ),
        ("peak memory, kvfix / hand edit", ours, hand, "peak_mib"),
    ]
    found = {}
    for name, above, below, what in wanted:
        if above and below and above.get(what) and below.get(what):
            found[name] = _middle(above[what]) / _middle(below[what])
    if ours and floor and ours.get("device_ms"):
        found["decode call on the device, kvfix / floor"] = _middle(ours["device_ms"]) / floor["floor_ms"]
    return found


def _middle(value: Any) -> float:
    return statistics.median(value) if isinstance(value, list) else value


def tables(rows: Sequence[Row]) -> list[Any]:
    """Two rich tables; a row that failed shows its error."""
    from rich.table import Table

    times = Table(box=None, header_style="bold", title="Medians, ± half the distance between quartiles")
    counts = Table(box=None, header_style="bold", title="Counts, differences from eager, memory")
    measured = ["cold_s", "warm_s", "forecast_s", "outside_s", "prefill_ms", "call_ms", "host_ms", "launch_ms", "device_ms"]
    if not any(row.get("launch_ms") for row in rows):
        measured.remove("launch_ms")
    for name in ("approach", *(name.replace("_", " ") for name in measured)):
        times.add_column(name, justify="left" if name == "approach" else "right", no_wrap=True)
    for name in ("approach", "graphs", "breaks", "recomp.", "skips", "rec.", "graph l.", "other l.", "kernels", "busy ms",
                 "core ms", "MAE", "rel. MAE", "MiB"):  # fmt: skip
        counts.add_column(name, justify="left" if name == "approach" else "right", no_wrap=True)
    for row in rows:
        if row.get("error"):
            times.add_row(row["approach"], row["error"])
            continue
        times.add_row(row["approach"], *(_measured(row, name) for name in measured))
        skips = row.get("skips")
        counts.add_row(
            row["approach"],
            *(_count(row.get(name)) for name in ("graphs", "breaks", "recompiles")),
            _count(None if skips is None else len(skips)),
            *(_count(row.get(name)) for name in ("recordings", "graph_launches", "other_launches", "kernels")),
            _number(row.get("busy_ms")),
            _number(row.get("core_ms")),
            *("-" if row.get(name) is None else f"{row[name]:.1e}" for name in ("mae", "relative_mae")),
            _number(row.get("peak_mib"), "{:.0f}"),
        )
    return [times, counts]


def _measured(row: Row, name: str) -> str:
    value = median(row, name)
    if value is None or len(row[name]) == 1:
        return _number(value)
    return f"{value:.3g} ±{100 * spread(row[name]):.0f}%"


def _number(value: float | None, form: str = "{:.3g}") -> str:
    return "-" if value is None else form.format(value)


def _count(value: int | None) -> str:
    return "-" if value is None else str(value)
