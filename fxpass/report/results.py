"""Recorded figures: one JSON file a run, with what it was measured on."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

import torch


def setting() -> dict[str, str]:
    """Device, torch, commit and date of a run."""
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "commit": os.environ.get("KVFIX_COMMIT") or _commit(),
        "date": datetime.date.today().isoformat(),
    }


def write(path: pathlib.Path, values: dict[str, Any]) -> None:
    """``values`` under what they were measured on, at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**setting(), **values}, indent=1) + "\n")


def command(arguments: Sequence[str]) -> str:
    """The command line to repeat a run, without where its figures were written."""
    kept = [a for before, a in zip(["", *arguments], arguments) if before != "--json" and not a.startswith("--json")]
    return shlex.join(["kvfix", *kept])


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
