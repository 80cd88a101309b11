"""Ops that reorder or repeat rows. The valid rows stay together at the front.

flip(k, [2])            {2: e}      ->      rows e - 1, e - 2, ... 0, then any rows
roll(k, 1, 2)           {2: e}      ->      rows (i - 1) % e
repeat(k, [1, 1, 2, 1]) {2: e}      ->      rows i % e, and 2 * e of them are valid
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.analysis.resizing import resized
from fxpass.errors import Refusal

from .places import minus, modulo, plus, rows, valid_length

aten = torch.ops.aten


@rule(aten.flip)
def flip(node: fx.Node, flow: Flow) -> Extents:
    x, dims = node.args
    own, rank = flow.of(x), node.meta["val"].dim()
    moved = {d: own[d] for d in _positive(dims, rank) if d in own}
    rest = [d for d in _positive(dims, rank) if d not in own]

    def build(b: Any) -> fx.Node:
        out = b.call(aten.flip.default, x, rest)
        for dim, extent in moved.items():
            last = plus(b, valid_length(b, extent, x), -1)
            out = rows(b, out, dim, extent, b.full(extent), functools.partial(minus, b, last))
        return out

    if moved:
        flow.replace(node, build)
    return dict(own)


@rule(aten.roll)
def roll(node: fx.Node, flow: Flow) -> Extents:
    x, shifts, dims = (*node.args, [])[:3]
    own: Any = flow.of(x)
    if not dims:
        raise Refusal(reasons.FLATTENED, op=node.target)
    shifts, dims = (list(v) if isinstance(v, (list, tuple)) else [v] for v in (shifts, dims))
    steps = list(zip(shifts, _positive(dims, node.meta["val"].dim()), strict=True))
    if not any(dim in own for _, dim in steps):
        return dict(own)

    def build(b: Any) -> fx.Node:
        out = x
        for shift, dim in steps:
            if dim not in own:
                out = b.call(aten.roll.default, out, [shift], [dim])
                continue
            length, moved = valid_length(b, own[dim], x), b.twin(shift, x.meta["val"].device)  # type: ignore[arg-type]
            back = -moved if isinstance(moved, int) else b.call(aten.neg.default, moved)
            out = rows(b, out, dim, own[dim], b.full(own[dim]), functools.partial(_rolled, b, back, length))
        return out

    flow.replace(node, build)
    return dict(own)


def _rolled(b: Any, by: Any, length: fx.Node, steps: fx.Node) -> fx.Node:
    """The places ``(i - by) % length``."""
    return modulo(b, plus(b, steps, by), length)


@rule(aten.repeat)
def repeat(node: fx.Node, flow: Flow) -> Extents:
    """``repeat(x, times)``; the dims of ``times`` count from the right."""
    x, times = node.args[0], list(node.args[1])  # type: ignore[arg-type]
    shift = len(times) - x.meta["val"].dim()  # type: ignore[union-attr]
    own = {d + shift: e for d, e in flow.of(x).items()}
    out: Extents = {}
    for dim, extent in own.items():
        if times[dim] in flow.positions:
            raise Refusal(reasons.BY_POSITION, op=node.target, how="which is how often the position-dependent axis is repeated")
        out[dim] = resized(node, flow, extent, (operator.mul, times[dim])) if times[dim] != 1 else extent

    def build(b: Any) -> fx.Node:
        made = b.call(aten.repeat.default, x, [1 if d in own else n for d, n in enumerate(times)])
        for dim, extent in own.items():
            if times[dim] != 1:
                length = valid_length(b, extent, x)  # type: ignore[arg-type]
                made = rows(b, made, dim, extent, b.full(out[dim]), functools.partial(_rolled, b, 0, length))
        return made

    if any(times[d] != 1 for d in own):
        flow.replace(node, build)
    return out


@rule(aten.repeat_interleave.self_int)
def repeat_interleave(node: fx.Node, flow: Flow) -> Extents:
    """Row ``i`` comes from row ``i // times``, whatever the length is, so the full buffer is repeated."""
    x, times, *rest = node.args
    dim = rest[0] if rest else node.kwargs.get("dim")
    own = dict(flow.of(x))
    if dim is None:
        raise Refusal(reasons.FLATTENED, op=node.target)
    if times in flow.positions:
        raise Refusal(reasons.BY_POSITION, op=node.target, how="which is how often the position-dependent axis is repeated")
    dim %= node.meta["val"].dim()  # type: ignore[operator]
    if dim in own:
        own[dim] = resized(node, flow, own[dim], (operator.mul, times))
        flow.replace(node, lambda b: b.call(aten.repeat_interleave.self_int, x, times, dim))
    return own


def _positive(dims: Any, rank: int) -> list[int]:
    return [d % rank for d in dims]
