"""Which ops do real work: those for which it pays to have a static core."""

from __future__ import annotations

import torch
from torch import fx

from fxpass.torch_internals.operators import OpOverload

aten = torch.ops.aten

_HEAVY = {
    op.overloadpacket if isinstance(op, OpOverload) else op
    for op in (
        aten.linear,
        aten.matmul,
        aten.mm,
        aten.bmm,
        aten.addmm,
        aten.baddbmm,
        aten.einsum,
        aten.embedding,
        aten.scaled_dot_product_attention,
        aten.convolution,
        aten.conv1d,
        aten.conv2d,
    )  # fmt: skip
}


def is_heavy(node: fx.Node) -> bool:
    """Whether ``node`` is a product, attention, or one of our kernels."""
    target = node.target
    return isinstance(target, OpOverload) and (
        target.overloadpacket in _HEAVY or target.namespace == "kvfix"
    )
