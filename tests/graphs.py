"""Graphs in aten with fake values, as the hand-off takes them, and what they compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from fxpass.execute.partition.split import Part, _part


def traced(fn: Callable[..., Any], args: Sequence[torch.Tensor]) -> fx.GraphModule:
    """``fn`` on fakes of ``args``, mutation left in place."""
    with FakeTensorMode() as mode, torch.no_grad():
        return make_fx(fn, pre_dispatch=True)(*(mode.from_tensor(a) for a in args))


def traced_growing(function: Callable[..., Any], growing: torch.Tensor, *fixed: torch.Tensor) -> fx.GraphModule:
    """``function`` in aten, dim 0 of its first input symbolic."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (growing.dim() - 1)
    inputs = [mode.from_tensor(growing, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))]
    inputs += [mode.from_tensor(f, static_shapes=True) for f in fixed]
    with mode:
        gm = make_fx(function, pre_dispatch=True)(*inputs)
    (results,) = next(n for n in gm.graph.nodes if n.op == "output").args
    gm.graph.output(tuple(results) if isinstance(results, (tuple, list)) else (results,))
    gm.graph.erase_node(next(n for n in gm.graph.nodes if n.op == "output"))
    return gm


def same(first: Callable[..., Any], second: Callable[..., Any], args: Sequence[torch.Tensor]) -> bool:
    """Whether both give the same outputs and leave the same in ``args``, to the bit."""
    own = [[a.clone() for a in args] for _ in range(2)]
    results = [fn(*mine) for fn, mine in zip((first, second), own, strict=True)]
    pairs = zip((*results[0], *own[0]), (*results[1], *own[1]), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def parts_of(gm: fx.GraphModule) -> list[Part]:
    """A cut before the product: what stands before it is taken for a prologue."""
    nodes = [n for n in gm.graph.nodes if n.op == "call_function"]
    at = next(i for i, n in enumerate(nodes) if "matmul" in str(n.target))
    return [_part("prologue", gm, nodes[:at], False), _part("core", gm, nodes[at:], True)]
