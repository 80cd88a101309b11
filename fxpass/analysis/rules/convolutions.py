"""Convolutions along the axis: the invalid part is filled with zeros, as padding is.

conv1d(k, w, padding=1)     {2: e} of S     ->      conv1d(masked_fill(k, invalid, 0), w, padding=1)

Valid length and full size become (n + 2 * padding - dilation * (w - 1) - 1) // stride + 1 of what they were.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.analysis.resizing import resized
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded, number
from fxpass.graph.schemas import arguments_by_name

aten = torch.ops.aten


@rule(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def convolution(node: fx.Node, flow: Flow) -> Extents:
    given = arguments_by_name(node)
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    spatial = weight.meta["val"].dim() - 2
    first = x.meta["val"].dim() - spatial
    if flow.of(weight) or flow.of(bias) or first - 1 in flow.of(x):
        raise Refusal(reasons.OTHER_AXIS, op=node.target, what="channels")
    out: Extents = {d: e for d, e in flow.of(x).items() if d < first}
    flow.fill(node, x, range(first, first + spatial), 0)
    for dim, extent in ((d, e) for d, e in flow.of(x).items() if d >= first):
        at = dim - first
        stride, padding, dilation = (
            _at(given.get(n), at, d) for n, d in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        width = weight.meta["val"].shape[2 + at]
        less = dilation * (width - 1) + 1 - 2 * padding
        if not isinstance(less, int) or not guarded(number(extent.length) >= max(less, 1)):
            raise Refusal(reasons.TOO_FEW, op=node.target)
        out[dim] = resized(node, flow, extent, (operator.sub, less), (operator.floordiv, stride), (operator.add, 1))
    return out


def _at(value: Any, place: int, default: int) -> Any:
    """The element of an argument for one dim. The argument may be one number for all dims."""
    if not isinstance(value, (list, tuple)):
        return default if value is None else value
    return value[place] if len(value) > 1 else value[0] if value else default
