"""Fake tensor propagation over a rewritten graph: ``meta["val"]`` is computed anew where the rewrite has changed something.

An op is run again only if it is new, if it was edited, or if an operand has another shape, stride, dtype or memory than before.

    k = full read of the buffer      new: run
    o = attention(q, k, v, mask)     new operands: run; as large as it was
    y = linear(o, w)                 keeps its value, and so does all that follows
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.operators import OpOverload, has_kernel

from . import aliases
from .attributes import attribute
from .normal_form import faking, mode_of
from .numbers import layout, to_expr

OpRecords = Mapping[str, tuple[Any, ...]]
"""The target and arguments of each op of a graph, by its name. A restored graph has other nodes of the same names."""


def op_records(gm: fx.GraphModule, without: Set[fx.Node] = frozenset()) -> OpRecords:
    """The record of each op of ``gm``, to tell later whether it was edited. Ops in ``without`` have none, and are run again."""
    return {n.name: _call(n) for n in gm.graph.nodes if n.op == "call_function" and n not in without}


def propagate(gm: fx.GraphModule, inputs: Sequence[Any], before: OpRecords | None = None) -> None:
    """Bring ``meta["val"]`` up to date on every node of ``gm``.

    Args:
        gm: the rewritten graph. All nodes that are in ``before`` carry the values that they had.
        inputs: the fake values of its placeholders, of one mode.
        before: the records of its ops from before the rewrite. Without them all ops are run.
    """
    before = before or {}
    changed: set[fx.Node] = set()
    moved: set[fx.Node] = set()
    with faking(mode_of(inputs)):
        for node, value in zip(gm.graph.find_nodes(op="placeholder"), inputs, strict=True):
            node.meta["val"] = value
        for node in gm.graph.nodes:
            if node.op != "call_function" or before.get(node.name) == _call(node) and not _affected(node, changed, moved):
                continue
            old, known = node.meta.get("val"), node.name in before
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), functools.partial(value_of, gm))
            node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]
            moved.add(node)
            if not known or not _alike(old, node.meta["val"]):
                changed.add(node)


def _call(node: fx.Node) -> tuple[Any, ...]:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda operand: f"%{operand.name}")
    return node.target, args, kwargs


def value_of(gm: fx.GraphModule, node: fx.Node) -> Any:
    """The value of ``node`` of ``gm`` while compiling: a fake tensor, a number, or the constant that it reads."""
    return attribute(gm, str(node.target)) if node.op == "get_attr" else node.meta["val"]


def _affected(node: fx.Node, changed: set[fx.Node], moved: set[fx.Node]) -> bool:
    """Whether an operand of ``node`` has changed, or has other memory than before, of which ``node`` may be a view."""
    operands = node.all_input_nodes
    if any(i in changed for i in operands):
        return True
    return any(i in moved and not _own_memory(node) for i in operands)


def _own_memory(node: fx.Node) -> bool:
    """Whether the schema says that the result of ``node`` shares no memory with an operand."""
    target = node.target
    if not isinstance(target, OpOverload) or aliases.written(node):
        return False
    return all(
        r.alias_info is None for r in target._schema.returns
    ) and not has_kernel(target.name(), "CompositeImplicitAutograd")


def _alike(old: Any, new: Any) -> bool:
    """Whether two values differ in nothing but their memory."""
    if isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        same = (old.dtype, old.device, old.layout) == (new.dtype, new.device, new.layout)
        return same and layout(old) == layout(new)
    if isinstance(old, (tuple, list)) and isinstance(new, (tuple, list)):
        return len(old) == len(new) and all(_alike(a, b) for a, b in zip(old, new, strict=True))
    return type(old) is type(new) and to_expr(old) == to_expr(new)
