"""A name of torch, looked up by its full name, and what stands for one that this torch does not have."""

from __future__ import annotations

import functools
import importlib
from typing import Any


class Missing(ImportError):
    """A private name that this torch does not have was used."""


def resolve(name: str) -> Any:
    """The module, class or function with the full ``name``.

    Raises:
        Missing: there is none.
    """
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        try:
            return functools.reduce(getattr, parts[i:], found)
        except AttributeError:
            break
    raise Missing(f"this torch has no {name}")


def stand_in(name: str, missing: Missing) -> type:
    """A class called like the last part of ``name``, which raises ``missing`` anew when it is called."""
    return type(name.rpartition(".")[2], (_StandIn,), {"_missing": str(missing)})


class _StandIn(Exception):
    """The base of what stands for a missing name. It may be subclassed or caught; nothing is an instance of it."""

    _missing = ""

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        raise Missing(cls._missing)
