"""How torch's own functions are taught: each is put behind a hook that is given it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def wrap(owner: Any, name: str, hook: Callable[..., Any]) -> None:
    """Let ``owner.name(*args)`` call ``hook(stock, *args)``, ``stock`` being what stood there."""
    stock = getattr(owner, name)

    @functools.wraps(stock)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return hook(stock, *args, **kwargs)

    setattr(owner, name, wrapped)
