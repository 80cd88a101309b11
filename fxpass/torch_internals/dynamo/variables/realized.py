"""Dynamo's variables that stand for a value are made what they stand for only when they are looked at."""

from __future__ import annotations

from typing import Any


def realized(variable: Any) -> Any:
    """``variable``, or what it stands for if Dynamo has not looked at it yet."""
    return variable.realize() if hasattr(variable, "realize") else variable
