"""A script that shows a difference (`verify.script`) tells Dynamo what its inputs were when the graph was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fxpass.torch_internals.contracts import Feature
from fxpass.torch_internals.dynamo.names import mark_static_address, maybe_mark_dynamic
from fxpass.torch_internals.features import holds


def mark(args: Sequence[Any], dynamic: Sequence[tuple[int, int]], static: Sequence[int]) -> None:
    """Mark the ``dynamic`` sizes of ``args``, each by a place and a dim. The ``static`` places are those of what belongs to a
    module."""
    if not holds(Feature.MARKS):
        return
    for place, dim in dynamic:
        maybe_mark_dynamic(args[place], dim)
    for place in static:
        mark_static_address(args[place], guard=False)
