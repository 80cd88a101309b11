"""The values that the inputs of the frame under compilation hold at a source, as a guard would find them."""

from __future__ import annotations

from typing import Any

from .functions import found

NOTHING: Any = object()
"""It stands for what cannot be found: there is no such item, as the frame will find out, or Dynamo has no plain name for it."""


def value_at(tx: Any, source: Any) -> Any:
    """The value at ``source`` in the outermost frame of ``tx``, or `NOTHING`."""
    try:
        return value_named(tx, source.name)
    except Exception:  # Dynamo has no plain name for the source
        return NOTHING


def value_named(tx: Any, name: str) -> Any:
    """The value of the input called ``name`` in the outermost frame of ``tx``, or `NOTHING`."""
    frame = tx.output.root_tx
    try:
        return found(name, frame.f_globals, frame.f_locals)
    except Exception:  # evaluating a name of the user's may raise anything
        return NOTHING
