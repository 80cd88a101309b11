"""Operators that go along some dims and leave the others alone: an extent passes on each of the others.

rfft(k, dim=3)              {2: e}  ->  {2: e}      what is made of rows that are not valid touches no valid one
avg_pool2d(k, [1, 2])       {1: e}  ->  {1: e}      refused on the last two dims, which the windows go along
cdist(x, k)                 {2: e} of k, among its rows, becomes {3: e}, among the columns of the distances
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import guarded

aten = torch.ops.aten

_FEW_ROWS, _EXACT = 25, 2
"""As many rows at most have their distances computed one by one; the mode of `_cdist_forward` that does so for any number."""


@rule(aten._fft_r2c.default, aten._fft_c2c.default, aten._fft_c2r.default)
def fourier(node: fx.Node, flow: Flow) -> Extents:
    x, dims = node.args[:2]
    return _beside(node, flow, x, {d % x.meta["val"].dim() for d in dims})  # type: ignore[union-attr]


@rule(aten.avg_pool2d.default, aten.avg_pool3d.default, aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default,
      aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)  # fmt: skip
def pooled(node: fx.Node, flow: Flow) -> Extents:
    x = node.args[0]
    rank = x.meta["val"].dim()  # type: ignore[union-attr]
    return _beside(node, flow, x, set(range(rank - (3 if "3d" in str(node.target) else 2), rank)))


@rule(aten._native_batch_norm_legit_no_training.default)
def normalized_by_statistics(node: fx.Node, flow: Flow) -> Extents:
    """Each channel, on dim 1, by numbers that are given."""
    return _beside(node, flow, node.args[0], {1})


def _beside(node: fx.Node, flow: Flow, x: Any, along: set[int]) -> Extents:
    """The extents of ``x``, none of which may be on a dim that the operator goes ``along``."""
    if along & flow.of(x).keys():
        raise Refusal(reasons.OVER_AXIS, op=node.target)
    return dict(flow.of(x))


@rule(aten._cdist_forward.default)
def distances(node: fx.Node, flow: Flow) -> Extents:
    """``x`` [.., n, d] and ``y`` [.., m, d] give [.., n, m].

    Left to itself, PyTorch takes Euclidean distances of more than 25 rows from a product, which rounds otherwise. With fewer,
    it is told not to, since the buffer may have more."""
    rank = node.meta["val"].dim()
    out: Extents = {}
    for operand, place in zip(node.args[:2], (rank - 2, rank - 1), strict=True):
        own, rows = dict(flow.of(operand)), operand.meta["val"].dim() - 2  # type: ignore[union-attr]
        if rows in own:
            out[place] = own.pop(rows)
        if own:
            raise Refusal(reasons.OVER_AXIS, op=node.target)
    x, y, p, mode = node.args
    sizes = [t.meta["val"].shape[-2] for t in (x, y)]  # type: ignore[union-attr]
    if out and p == 2 and not mode and all(guarded(n <= _FEW_ROWS) for n in sizes):
        flow.replace(node, lambda b: b.call(node.target, b.operand(node, x), b.operand(node, y), p, _EXACT))
    return out
