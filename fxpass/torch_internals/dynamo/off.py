"""What stands for `dynamism` and `precompile` where the hooks are off: nothing is marked, and nothing is kept."""

from __future__ import annotations

from typing import Any

Restart: tuple[type[Exception], ...] = ()


def expect(gm: Any, normal: Any) -> None:
    """Nothing is marked."""


def generalize(gm: Any, sites: Any) -> None:
    """Nothing is marked."""


def forget() -> None:
    """Nothing is remembered."""


def is_wanted(gm: Any) -> bool:
    """Dynamo's guards are not ours: no graph is kept."""
    return False
