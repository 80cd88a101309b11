"""What Dynamo's variables stand for. One that Dynamo has not looked at yet is made what it stands for when it is looked at."""

from __future__ import annotations

from typing import Any


def realized(variable: Any) -> Any:
    """``variable``, or what it stands for if Dynamo has not looked at it yet."""
    return variable.realize() if hasattr(variable, "realize") else variable


def is_text(variable: Any) -> bool:
    """Whether ``variable`` stands for a text that is known."""
    return variable.is_python_constant() and isinstance(variable.as_python_constant(), str)
