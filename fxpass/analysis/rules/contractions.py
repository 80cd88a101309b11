"""Contractions: an extent on a free axis passes; on the contracted axis both operands are filled with 0.

    scores = q @ kt        {3: e} of kt  ->  {3: e}: the invalid columns of kt make invalid columns, and nothing else
    out = p @ v            {3: e} of p and {2: e} of v: masked_fill(p, invalid, 0) @ masked_fill(v, invalid, 0)

Both operands are filled, since 0 * NaN is NaN.
"""

from __future__ import annotations

import string
from typing import Any

import torch
from torch import fx

from fxpass import reasons
from fxpass.analysis.extents import Extents, Flow, rule
from fxpass.errors import Refusal
from fxpass.graph.numbers import equal

from .alignment import align, check_aligned
from .pointwise import broadcast

aten = torch.ops.aten


def _contract(node: fx.Node, flow: Flow, a: Any, a_dim: int, b: Any, b_dim: int) -> None:
    ea, eb = flow.of(a).get(a_dim), flow.of(b).get(b_dim)
    if ea is None and eb is None:
        return
    if ea is None or eb is None or not equal(ea.length, eb.length):
        raise Refusal(reasons.ONE_SIDED, op=node.target)
    flow.fill(node, a, [a_dim], 0)
    flow.fill(node, b, [b_dim], 0)
    align(node, flow, [(a, a_dim), (b, b_dim)])


@rule(aten.matmul, aten.bmm, aten.mm, aten.mv, aten.dot)
def matmul(node: fx.Node, flow: Flow) -> Extents:
    """``a @ b``. A vector on the left has no rows and one on the right no columns, so the result lacks that dim."""
    a, b = node.args[:2]
    ra, rb, out = a.meta["val"].dim(), b.meta["val"].dim(), node.meta["val"].dim()  # type: ignore[union-attr]
    _contract(node, flow, a, ra - 1, b, max(rb - 2, 0))
    left, right = out + (rb == 1) - ra, out + (ra == 1) - rb
    rows = {d + left: e for d, e in flow.of(a).items() if d != ra - 1}
    columns = {d + right - (ra == 1 and d == rb - 1): e for d, e in flow.of(b).items() if d != max(rb - 2, 0)}
    check_aligned(node, flow, a, [d for d in range(ra - 2) if d + left in columns])
    check_aligned(node, flow, b, [d for d in range(rb - 2) if d + right in rows])
    return flow.merge(rows, columns)


@rule(aten.baddbmm.default, aten.addmm.default)
def added(node: fx.Node, flow: Flow) -> Extents:
    """``input + a @ b``; ``input`` has the size of the result."""
    extra, a, b = node.args[:3]
    rank = node.meta["val"].dim()
    _contract(node, flow, a, rank - 1, b, rank - 2)
    rows = {d: e for d, e in flow.of(a).items() if d != rank - 1}
    columns = {d: e for d, e in flow.of(b).items() if d != rank - 2}
    return broadcast(node, flow, [extra], flow.merge(rows, columns))


@rule(aten.linear)
def linear(node: fx.Node, flow: Flow) -> Extents:
    """``x @ weight.T + bias``; the rows of ``weight`` may be those of a cache."""
    x, weight, bias = (*node.args, None)[:3]
    last = x.meta["val"].dim() - 1  # type: ignore[union-attr]
    if weight.meta["val"].dim() < 2:  # type: ignore[union-attr, misc]
        raise Refusal(reasons.OTHER_AXIS, op=node.target, what="a vector for the weights")
    _contract(node, flow, x, last, weight, 1)
    rows = {d: e for d, e in flow.of(x).items() if d != last}
    columns = {last: flow.of(weight)[0]} if 0 in flow.of(weight) else {}
    return broadcast(node, flow, [] if bias is None else [bias], flow.merge(rows, columns))


@rule(aten.einsum)
def einsum(node: fx.Node, flow: Flow) -> Extents:
    operands = node.args[1]
    inputs, output = _spelled_out(node.args[0], [o.meta["val"].dim() for o in operands])  # type: ignore[arg-type, union-attr]
    by_label: dict[str, list[tuple[Any, int]]] = {}
    for labels, operand in zip(inputs.split(","), operands, strict=True):  # type: ignore[arg-type]
        for dim, label in enumerate(labels):
            by_label.setdefault(label, []).append((operand, dim))
    out: Extents = {}
    for label, places in by_label.items():
        extents = [flow.of(operand).get(dim) for operand, dim in places]
        if not any(extents):
            continue
        first = next(e for e in extents if e is not None)
        if not all(e is not None and equal(e.length, first.length) for e in extents):
            raise Refusal(reasons.ONE_SIDED, op=node.target)
        if label not in output:
            for operand, dim in places:
                flow.fill(node, operand, [dim], 0)
        extent = align(node, flow, places)
        if label in output:
            out[output.index(label)] = extent
    return out


def _spelled_out(equation: str, ranks: list[int]) -> tuple[str, str]:
    """Inputs and output of an einsum with a letter for every dim: ``...qd,...kd`` of rank 4 is ``ABqd,ABkd->...``."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    free = [c for c in string.ascii_letters if c not in equation]
    letters = "".join(free[: max(counts, default=0)])
    if not arrow:
        used = [c for c in inputs if c.isalpha()]
        output = "..." * bool(counts) + "".join(sorted(c for c in set(used) if used.count(c) == 1))
    named = [
        term.replace("...", letters[len(letters) - (rank - len(term) + 3) :])
        for term, rank in zip(terms, ranks, strict=True)
    ]
    return ",".join(named), output.replace("...", letters)
