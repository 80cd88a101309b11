"""Whether a function is one of a few. Functions are compared by identity, since some have no hash, or compare otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def among(fn: Any, functions: Iterable[Any]) -> bool:
    """Whether ``fn`` is one of ``functions``."""
    return any(fn is own for own in functions)
