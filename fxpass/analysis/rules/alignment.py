"""Operands of one valid length on axes of different full sizes: the longer axes are cut.

add(k, mask)        {2: e of 16}, {2: e of 32}      ->      add(k, mask[:, :, :16])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Cut, Extent, Flow
from fxpass.errors import Refusal
from fxpass.graph.numbers import equal, guarded


def align(node: fx.Node, flow: Flow, places: Iterable[tuple[Any, int]]) -> Extent:
    """The extent that the dims ``places`` of operands of ``node`` share. Each of them has one; the longer axes are cut.

    Raises:
        Refusal: it is not known that their valid lengths are equal, or which full size is the smallest.
    """
    places = list(places)
    own = [flow.of(operand)[dim] for operand, dim in places]
    if not all(equal(e.length, own[0].length) for e in own):
        raise Refusal(reasons.LENGTHS, what="two operands")
    shortest = own[0]
    for extent in own[1:]:
        if not equal(extent.full_size, shortest.full_size) and guarded(extent.full_size <= shortest.full_size):
            shortest = extent
    for (operand, dim), extent in zip(places, own, strict=True):
        if equal(extent.full_size, shortest.full_size):
            continue
        if not guarded(extent.full_size >= shortest.full_size):
            raise Refusal(reasons.LENGTHS, what="two operands")
        flow.fills.append(Cut(node, operand, {dim: shortest}))
    return dataclasses.replace(shortest, reads=frozenset().union(*(e.reads for e in own)))


def check_aligned(node: fx.Node, flow: Flow, operand: Any, dims: Iterable[int]) -> None:
    """Check ``dims`` of ``operand``, along which another operand of ``node`` has an extent.

    Raises:
        Refusal: ``operand`` has no extent there, and more than one element: the valid length, from elsewhere than a buffer.
    """
    for dim in dims:
        size = operand.meta["val"].shape[dim]
        if dim not in flow.of(operand) and not (isinstance(size, int) and size == 1):
            raise Refusal(reasons.FROM_ELSEWHERE, what=f"an operand of {node.target}")
