"""The length of a list is a number like any other number, if nothing else is asked of the list.

    p = len(tokens)         stock: a constant, a graph for each length      kvfix: s0, once it has moved
    if tokens: ...          stock: the same                                 kvfix: a guard, s0 != 0

Dynamo guards on the length of a list as soon as it looks into the list, and so it does here at first. Once the length has
changed, it is an input by itself. If the frame also looks into the list, for an item or in a loop, there is Dynamo's guard,
too.
"""

from __future__ import annotations

import collections
from typing import Any

from fxpass.torch_internals.dynamo.guards.frame_values import value_at
from fxpass.torch_internals.dynamo.guards.sources import LengthSource
from fxpass.torch_internals.dynamo.names import (
    FrameStateSizeEntry,
    VariableBuilder,
    auto_dynamic,
    process_automatic_dynamic,
)

_SIZED = (list, tuple, dict, collections.deque)


def length_of(tx: Any, arg: Any) -> Any:
    """The length of ``arg`` as a variable, if this is an input of the frame that has not been looked into, and had another
    length before; else None."""
    if not hasattr(arg, "is_realized") or arg.is_realized() or arg.source is None:
        return None
    value = value_at(tx, arg.source)
    if type(value) not in _SIZED:
        return None
    source = LengthSource(arg.source)
    seen = process_automatic_dynamic(tx, source.name, FrameStateSizeEntry.make_scalar(len(value)))
    return VariableBuilder(tx, source).wrap_symint(len(value)) if seen.scalar is auto_dynamic else None
