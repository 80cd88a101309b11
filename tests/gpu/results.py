"""Recorded results: one JSON a run, with what it was measured on."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
from typing import Any

import torch


def record(name: str, values: dict[str, Any]) -> None:
    """Write ``values`` to benchmarks/results/NAME.json (or under $KVFIX_RESULTS)."""
    folder = pathlib.Path(os.environ.get("KVFIX_RESULTS", "benchmarks/results"))
    folder.mkdir(parents=True, exist_ok=True)
    commit = (
        os.environ.get("KVFIX_COMMIT")
        or subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
    )
    where = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "commit": commit or "unknown",
        "date": datetime.date.today().isoformat(),
    }
    (folder / f"{name}.json").write_text(json.dumps({**where, **values}, indent=1) + "\n")
