"""Tensors that are made to the valid length of a buffer are made to its full size.

ones([q, n])          ->   ones([q, S])          {1: e}
eye(q, n)             ->   eye(q, S)             {1: e}
arange(0, n)          ->   arange(0, S)          {0: e}
arange(a, n)          ->   arange(0, S) + a      {0: e}, of length n - a
arange(n - 1, -1, -1) ->   n - 1 - arange(0, S)  {0: e}
arange(0, 2 * n, 2)   ->   arange(0, S) * 2      {0: e}
arange(a, a + 4)      ->   arange(4) + a         (a number of fixed length: no extent, see rewriting/edits/scalars.py)

Such a tensor is refused by itself, as a read is: it keeps its size then, and reads of the same length are rewritten.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import RULES, Extents, Flow
from fxpass.errors import Refusal
from fxpass.graph.numbers import equal

from .places import times

aten = torch.ops.aten


def _sized(node: fx.Node, flow: Flow) -> Extents:
    position = 1 if str(node.target).startswith("aten.new_") else 0
    sizes: list[Any] = list(node.args[position])  # type: ignore[arg-type]
    return _made(node, flow, sizes, lambda full: [*node.args[:position], full, *node.args[position + 1 :]])


def _eye(node: fx.Node, flow: Flow) -> Extents:
    return _made(node, flow, [node.args[0], node.args[-1]], lambda full: full[: len(node.args)])


def _made(node: fx.Node, flow: Flow, sizes: Sequence[Any], arguments: Callable[[list[Any]], list[Any]]) -> Extents:
    """The extents of ``node``, which makes a tensor of ``sizes``. For the full sizes it takes these ``arguments``."""
    out: Extents = {}
    for dim, size in enumerate(sizes):
        if size in flow.positions and isinstance(size.meta["val"], torch.SymInt):
            found = flow.within(size)
            if found is None:
                raise Refusal(reasons.NO_BUFFER, op=node.target)
            out[dim] = dataclasses.replace(found, reads=frozenset({node}))
    if not out:
        return {}

    def build(b: Any) -> fx.Node:
        args = arguments([b.full(out[d]) if d in out else s for d, s in enumerate(sizes)])
        return b.call(node.target, *args, **node.kwargs)

    flow.replace(node, build)
    return out


def _arange(node: fx.Node, flow: Flow) -> Extents:
    if isinstance(node.meta["val"].shape[0], int):
        return {}
    start, end, step = (*node.args, 1)[:3] if node.target is not aten.arange.default else (0, node.args[0], 1)
    if not isinstance(step, int) or isinstance(step, bool):
        raise Refusal(reasons.NO_BUFFER, op="an arange with a step that is no constant")
    first, last = (start, end) if step > 0 else (end, start)
    count = last if equal(first, 0) else flow.derive(node, operator.sub, last, first)
    if abs(step) != 1:
        count = flow.derive(node, operator.floordiv, flow.derive(node, operator.add, count, abs(step) - 1), abs(step))
    found = flow.within(count)
    if found is None:
        raise Refusal(reasons.NO_BUFFER, op=node.target)

    def build(b: Any) -> fx.Node:
        steps = b.call(aten.arange.default, b.full(found), dtype=node.meta["val"].dtype, device=node.meta["val"].device)
        steps = times(b, steps, abs(step))
        if step < 0:
            return b.call(aten.sub.Tensor, b.tensor(start, node.meta["val"].device), steps)
        return steps if equal(start, 0) else b.call(aten.add.Tensor, steps, b.twin(start, node.meta["val"].device))

    flow.replace(node, build)
    return {0: dataclasses.replace(found, reads=frozenset({node}))}


for _packet in (
    aten.zeros,
    aten.ones,
    aten.empty,
    aten.full,
    aten.new_zeros,
    aten.new_ones,
    aten.new_empty,
    aten.new_full,
):
    for _overload in _packet.overloads():
        if "out" not in _overload and "names" not in _overload:
            RULES[("factory", getattr(_packet, _overload))] = _sized
            RULES[getattr(_packet, _overload)] = _sized  # new_ones(x, [2]) takes only the dtype and device of x
for _overload in ("default", "m"):
    RULES[("factory", getattr(aten.eye, _overload))] = _eye
for _overload in ("default", "start", "start_step"):
    RULES[("factory", getattr(aten.arange, _overload))] = _arange
