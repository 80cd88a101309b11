"""A composite operator without a rule is replaced by the operators that PyTorch makes it of.

    hstack([a, b])          ->          cat([a, b], 1)

This is done only where an extent cannot get past the operator. All others stay whole for the compiler.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.fakes import enable_python_dispatcher, tracing
from fxpass.torch_internals.operators import OpOverload, has_kernel, tree_flatten, tree_unflatten
from fxpass.torch_internals.retrace import retrace

from .normal_form import mode_of
from .schemas import is_operator, memory_of, written_operands


def decompose(node: fx.Node) -> bool:
    """Replace ``node`` by its decomposition, in its graph; False where it has none."""
    target = node.target
    if not isinstance(target, OpOverload) or target._schema.is_mutable:
        return False
    if not has_kernel(target.name(), "CompositeImplicitAutograd"):
        return False
    flat, spec = tree_flatten((node.args, node.kwargs))
    places = [i for i, a in enumerate(flat) if isinstance(a, fx.Node)]
    values = [flat[i].meta["val"] for i in places]

    def run(*operands: Any) -> Any:
        filled = list(flat)
        for i, operand in zip(places, operands, strict=True):
            filled[i] = operand
        args, kwargs = tree_unflatten(filled, spec)
        return target.decompose(*args, **kwargs)

    with tracing(None), enable_python_dispatcher(), mode_of(values), torch.no_grad():
        traced = retrace(run, values)
    if any(n.target is target for n in traced.graph.nodes):
        return False
    memories = {memory_of(n.meta["val"]) for n in traced.graph.find_nodes(op="placeholder")}
    if any(_writes_to(n, memories) for n in traced.graph.nodes):
        return False  # a batch norm updates its statistics, which its schema does not tell
    copies: dict[fx.Node, Any] = {}
    for placeholder, i in zip((n for n in traced.graph.nodes if n.op == "placeholder"), places, strict=True):
        copies[placeholder] = flat[i]
    with node.graph.inserting_before(node):
        for inner in traced.graph.nodes:
            if inner.op in ("get_attr", "call_module"):
                return False
            if inner.op == "call_function":
                copies[inner] = node.graph.node_copy(inner, copies.__getitem__)
                copies[inner].meta = {**inner.meta, **{k: node.meta[k] for k in ("stack_trace",) if k in node.meta}}
    (result,) = next(n for n in traced.graph.nodes if n.op == "output").args
    if not isinstance(result, fx.Node):
        return False
    node.replace_all_uses_with(copies[result])
    node.graph.erase_node(node)
    return True


def _writes_to(node: fx.Node, memories: set[int | None]) -> bool:
    written = written_operands(node) if node.op == "call_function" and is_operator(node.target) else ()
    return any(isinstance(value, fx.Node) and memory_of(value.meta["val"]) in memories for value in written)
