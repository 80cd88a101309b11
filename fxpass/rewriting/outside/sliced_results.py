"""A result that is a slice of another result is taken outside of the graph, from the other result.

    return x, x[:, -1:]          ->          return x, None          and outside x[:, -1:], of the x that is returned

Such an `x` is as long as what grows. It leaves the graph at full size, and is cut outside. A slice that is taken in the graph
would not share memory with the tensor that the caller gets.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import torch
from torch import fx

from fxpass.errors import Refusal
from fxpass.graph import aliases
from fxpass.graph.bounds import bounds_of, size_of, sliced_axis
from fxpass.graph.numbers import fixed, layout, number, symbols, to_expr

aten = torch.ops.aten


class SliceOf(NamedTuple):
    """``rows`` rows along ``dim`` of the result at ``place``, from ``start`` on. A negative ``start`` counts from the end."""

    place: int
    dim: int
    start: int
    rows: int

    def of(self, results: Sequence[torch.Tensor]) -> torch.Tensor:
        """The slice, taken from ``results``."""
        whole = results[self.place]
        return whole.narrow(self.dim, self.start % whole.shape[self.dim], self.rows)


def sliced_results(results: Sequence[Any], moving: Set[Any]) -> dict[int, SliceOf]:
    """The places of those of ``results`` that are slices of other results, whose sizes have ``moving`` symbols."""
    found = {}
    for i, node in enumerate(results):
        if isinstance(node, fx.Node) and (axis := sliced_axis(node)) is not None:
            base, dim = axis
            whole = next((p for p, other in enumerate(results) if p != i and _is_all_of(other, base)), None)
            rows = fixed(node.meta["val"].shape[dim]) if node.meta["val"].dim() == base.meta["val"].dim() else None
            if whole is None or rows is None or not symbols(base.meta["val"].shape[dim]) & moving:
                continue
            if (start := _start(node, base, dim)) is not None:
                found[i] = SliceOf(whole, dim, start, rows)
    return found


def _is_all_of(result: Any, base: fx.Node) -> bool:
    while base.target is aten.dropout.default and not (base.args[1] and base.args[2]):  # it gives its operand itself
        base = base.args[0]  # type: ignore[assignment]
    if not isinstance(result, fx.Node) or aliases.storage(result) is None:
        return False
    return aliases.storage(result) == aliases.storage(base) and layout(result.meta["val"]) == layout(base.meta["val"])


def _start(node: fx.Node, base: fx.Node, dim: int) -> int | None:
    """Where ``node`` starts, if that is fixed from the front or from the end."""
    try:
        start, _ = bounds_of(node, size_of(base, dim, node))
    except Refusal:
        return None
    for distance in (to_expr(number(start)), to_expr(number(start) - base.meta["val"].shape[dim])):
        if isinstance(distance, int) or distance.is_Integer:
            return int(distance)
    return None
