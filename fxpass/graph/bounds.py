"""The bounds of ``aten.slice``, which may be left out."""

from __future__ import annotations

from typing import Any

from torch import fx

TO_THE_END = 2**63 - 1
"""The end of a slice that has none."""

_DEFAULTS: list[Any] = [0, None, None, 1]


def slice_arguments(node: fx.Node) -> tuple[fx.Node, int, Any, Any, Any]:
    """(input, dim, start, end, step) of an ``aten.slice.Tensor``; bounds that are None become 0 and `TO_THE_END`."""
    x, dim, start, end, step = list(node.args) + _DEFAULTS[len(node.args) - 1 :]
    assert isinstance(x, fx.Node)
    return x, dim, 0 if start is None else start, TO_THE_END if end is None else end, step
