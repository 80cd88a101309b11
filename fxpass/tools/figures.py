"""Recorded figures: a JSON file for each run, which says what it was measured on."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def setting() -> dict[str, str]:
    """Device, torch, commit and date of a run.

    The commit is git's, ``-dirty`` where tracked files differ from it, recorded figures aside. ``KVFIX_COMMIT`` stands in
    for it on a machine that has the files without the repository, and is not looked at on any other.
    """
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "commit": _commit() or os.environ.get("KVFIX_COMMIT") or "unknown",
        "date": datetime.date.today().isoformat(),
    }


def write_figures(path: Path, values: dict[str, Any]) -> None:
    """``values`` under what they were measured on, at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**setting(), **values}, indent=1) + "\n")


def command(arguments: Sequence[str]) -> str:
    """The command line to repeat a run, without where its figures were written."""
    pairs = itertools.pairwise(["", *arguments])
    kept = [a for before, a in pairs if before != "--json" and not a.startswith("--json")]
    return shlex.join(["kvfix", *kept])


def _commit() -> str:
    """What is checked out here; empty without git or a repository."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()
