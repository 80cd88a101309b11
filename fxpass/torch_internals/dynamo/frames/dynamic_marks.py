"""Marks in Dynamo's record of a frame make a size or an int dynamic, as if it had been seen to change, or fix a size again.

    record of past     size (1, 2, 12, 8)     mark_size(tx, "past", 2)     size (1, 2, auto_dynamic, 8)
"""

from __future__ import annotations

from types import CodeType
from typing import Any

from fxpass.torch_internals.dynamo.names import FrameStateSizeEntry, auto_dynamic, update_automatic_dynamic

from .history import history_of


def mark_int(tx: Any, name: str) -> bool:
    """Make the int called ``name`` dynamic, also where it has not been seen before, and tell whether it was fixed so far."""
    entry = update_automatic_dynamic(tx, name, FrameStateSizeEntry())
    fixed = type(entry.scalar) is int
    entry.scalar = auto_dynamic
    return fixed


def mark_size(tx: Any, name: str, dim: int) -> bool:
    """Make the size of the tensor called ``name`` dynamic along ``dim``, and tell whether it was fixed so far."""
    entry, marked = update_automatic_dynamic(tx, name, FrameStateSizeEntry()), history_of(tx.f_code).marked
    if marked is None or not isinstance(entry.size, tuple) or type(entry.size[dim]) is not int:
        return False
    marked.append((entry, entry.size))
    entry.size = (*entry.size[:dim], auto_dynamic, *entry.size[dim + 1 :])
    return True


def fix_size(tx: Any, name: str, dim: int, size: int) -> None:
    """Undo `mark_size`: the size is ``size`` until it is seen to be another."""
    entry = update_automatic_dynamic(tx, name, FrameStateSizeEntry())
    entry.size = (*entry.size[:dim], size, *entry.size[dim + 1 :])


def take_back(code: CodeType) -> bool:
    """Fix the sizes that were marked in the frame of ``code`` again, for good, and tell whether there were any.

    Dynamo fails on a symbol in the size of an input that is given other memory, as by ``k.data = other``.
    """
    seen = history_of(code)
    marked, seen.marked = seen.marked, None
    for entry, size in reversed(marked or []):
        entry.size = size
    return bool(marked)
