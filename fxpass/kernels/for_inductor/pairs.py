"""Products of complex numbers that are only read as pairs of real numbers become arithmetic on the pairs.

    a = view_as_complex(x)                         a0, a1 = x.select(-1, 0), x.select(-1, 1)
    c = a * b                              ->      b0, b1 = view_as_real(b).select(-1, 0), view_as_real(b).select(-1, 1)
    y = view_as_real(c)                            y = stack([a0 * b0 - a1 * b1, a0 * b1 + a1 * b0], -1)

Inductor generates no code for complex numbers: each of their products is a kernel of its own, which reads its operands from
memory and stores its result. Rotary embeddings are often written with them.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.insertion import call
from fxpass.graph.normal_form import faking, mode_of
from fxpass.kernels.launches.memory_writes import MemoryWrites

aten = torch.ops.aten

SHAPING = {
    aten.view.default, aten.reshape.default, aten.unsqueeze.default, aten.expand.default, aten.alias.default,
    aten.transpose.int, aten.permute.default, aten.select.int, aten.slice.Tensor,
}  # fmt: skip
"""Operators that do the same to a complex tensor as to each of its two parts."""


class Pair(NamedTuple):
    """The real and the imaginary part of a tensor."""

    real: fx.Node
    imaginary: fx.Node


def use_pairs(graph: fx.Graph, writing: MemoryWrites) -> None:
    """Replace the products in ``graph`` (propagated) that are read only as pairs."""
    for node in graph.find_nodes(op="call_function", target=aten.view_as_real.default):
        product = node.args[0]
        if not _is_seen_once(product) or not _stays(product, node, writing) or writing.anywhere(aliases.storage(node)):
            continue
        with graph.inserting_before(node), faking(mode_of([node.meta["val"]])):
            new = call(graph, aten.stack.default, list(_pair(product)), -1)
        new.meta = {**node.meta, **new.meta}
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    aliases.remove_dead(graph)


def _is_product(node: fx.Node) -> bool:
    factors = node.args if node.target is aten.mul.Tensor else ()
    return bool(factors) and all(isinstance(f, fx.Node) and f.meta["val"].is_complex() for f in factors)


def _is_seen_once(node: fx.Node) -> bool:
    """Whether ``node`` is a product, or a product in another shape, and has a single user."""
    while node.target in SHAPING and len(node.users) == 1:
        node = node.args[0]  # type: ignore[assignment]
    return _is_product(node) and len(node.users) == 1


def _stays(node: fx.Node, user: fx.Node, writing: MemoryWrites) -> bool:
    """Whether the operands of ``node`` still have their values where ``user`` stands."""
    if node.target in SHAPING or node.target is aten.view_as_complex.default or _is_product(node):
        return all(_stays(n, user, writing) for n in node.all_input_nodes)
    return not writing.between(node, user, aliases.storage(node)) and not node.meta["val"].is_conj()


def _pair(node: fx.Node) -> Pair:
    """The real and the imaginary part of the complex ``node``."""
    graph = node.graph
    if node.target in SHAPING:
        real, imaginary = _pair(node.args[0])  # type: ignore[arg-type]
        return Pair(*(call(graph, node.target, part, *node.args[1:], **node.kwargs) for part in (real, imaginary)))
    if _is_product(node):
        a, b = (_pair(factor) for factor in node.args)  # type: ignore[arg-type]
        mul, sub, add = (functools.partial(call, graph, op.Tensor) for op in (aten.mul, aten.sub, aten.add))
        return Pair(
            sub(mul(a.real, b.real), mul(a.imaginary, b.imaginary)), add(mul(a.real, b.imaginary), mul(a.imaginary, b.real))
        )
    pairs = node.args[0] if node.target is aten.view_as_complex.default else call(graph, aten.view_as_real.default, node)
    return Pair(*(call(graph, aten.select.int, pairs, -1, i) for i in range(2)))
