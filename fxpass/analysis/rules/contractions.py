"""Contractions: an extent on a free axis passes, one on the contracted axis is filled with 0 in both operands.

    scores = q @ kt        {3: e} of kt  ->  {3: e}: the invalid columns of kt make invalid columns, nothing else
    out = p @ v            {3: e} of p and {2: e} of v: masked_fill(p, invalid, 0) @ masked_fill(v, invalid, 0)

Both, because 0 * NaN is NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal

aten = torch.ops.aten


def _contract(node: fx.Node, flow: Flow, a: Any, a_dim: int, b: Any, b_dim: int) -> None:
    ea, eb = flow.of(a).get(a_dim), flow.of(b).get(b_dim)
    if ea is None and eb is None:
        return
    if ea is None or eb is None or not ea.same(eb):
        raise Refusal(f"{node.target} contracts a position-dependent axis with one that is not")
    flow.fill(node, a, [a_dim], 0)
    flow.fill(node, b, [b_dim], 0)


@rule(aten.matmul, aten.bmm, aten.mm)
def matmul(node: fx.Node, flow: Flow) -> Extents:
    a, b = node.args[:2]
    ra, rb, out = a.meta["val"].dim(), b.meta["val"].dim(), node.meta["val"].dim()  # type: ignore[union-attr]
    if ra < 2 or rb < 2:
        raise Refusal(f"{node.target} of a vector with a position-dependent size")
    _contract(node, flow, a, ra - 1, b, rb - 2)
    rows = {d + out - ra: e for d, e in flow.of(a).items() if d != ra - 1}
    columns = {d + out - rb: e for d, e in flow.of(b).items() if d != rb - 2}
    return flow.merge(rows, columns)


@rule(aten.linear)
def linear(node: fx.Node, flow: Flow) -> Extents:
    x, weight = node.args[:2]
    last = x.meta["val"].dim() - 1  # type: ignore[union-attr]
    _contract(node, flow, x, last, weight, 1)
    return {d: e for d, e in flow.of(x).items() if d != last}


@rule(aten.einsum)
def einsum(node: fx.Node, flow: Flow) -> Extents:
    equation, operands = node.args[0].replace(" ", ""), node.args[1]  # type: ignore[union-attr]
    if "." in equation or "->" not in equation:
        raise Refusal("an einsum with an ellipsis or an implicit output meets a position-dependent axis")
    inputs, output = equation.split("->")
    by_label: dict[str, list[tuple[Any, int]]] = {}
    for labels, operand in zip(inputs.split(","), operands):  # type: ignore[arg-type]
        for dim, label in enumerate(labels):
            by_label.setdefault(label, []).append((operand, dim))
    out: Extents = {}
    for label, places in by_label.items():
        extents = [flow.of(operand).get(dim) for operand, dim in places]
        if not any(extents):
            continue
        first = next(e for e in extents if e is not None)
        if not all(e is not None and e.same(first) for e in extents):
            raise Refusal("an einsum joins a position-dependent axis with one that is not")
        if label in output:
            out[output.index(label)] = first
        else:
            for operand, dim in places:
                flow.fill(node, operand, [dim], 0)
    return out
