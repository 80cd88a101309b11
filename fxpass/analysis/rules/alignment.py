"""Axes of operands that go together: of one valid length, and made one full size.

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
    """The extent that ``places``, dims of operands of ``node`` that all have one, come to have: the longer ones are cut.

    Raises:
        Refusal: their valid lengths are not known to be the same, or which is the longer one.
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
