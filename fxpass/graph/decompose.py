"""An operator without a rule is replaced by the operators that PyTorch computes it with.

    hstack([a, b])          ->          cat([a, b], 1)                                          (composite)
    hardswish(x)            ->          mul(x, div(clamp_max(clamp_min(add(x, 3), 0), 6), 6))   (in the table of decompositions)

This is done only where an extent cannot be followed past the operator. All other operators stay whole for the compiler. So do
operators that draw random numbers, since their decompositions would draw other numbers, and operators that give a view of an
operand, since the view might become a copy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpass.torch_internals.fakes import enable_python_dispatcher, tracing
from fxpass.torch_internals.operators import OpOverload, decomposition_table, has_kernel, tree_flatten, tree_unflatten
from fxpass.torch_internals.retrace import retrace

from . import aliases
from .normal_form import mode_of
from .schemas import is_operator, memory_of, written_operands

aten = torch.ops.aten
_IN_TWO = {aten.var_mean: torch.var, aten.std_mean: torch.std}
"""Operators that give a spread and a mean, with the function that gives the first. PyTorch's own formulas are of primitives."""


class _Declined(Exception):
    """PyTorch has a formula for the operator, and none for these operands."""


def decompose(node: fx.Node) -> bool:
    """Replace ``node`` by its decomposition, in its graph; False where it has none."""
    target = node.target
    formula = _formula(target)
    if formula is None:
        return False
    flat, spec = tree_flatten((node.args, node.kwargs))
    places = [i for i, a in enumerate(flat) if isinstance(a, fx.Node)]
    values = [flat[i].meta["val"] for i in places]

    def run(*operands: Any) -> Any:
        filled = list(flat)
        for i, operand in zip(places, operands, strict=True):
            filled[i] = operand
        args, kwargs = tree_unflatten(filled, spec)
        results = formula(*args, **kwargs)
        if results is NotImplemented:
            raise _Declined
        return tuple(results) if isinstance(results, tuple) else results  # a named one cannot be written as code

    try:
        with tracing(None), enable_python_dispatcher(), mode_of(values), torch.no_grad():
            traced = retrace(run, values)
    except _Declined:
        return False
    if any(n.target is target for n in traced.graph.nodes):
        return False
    aliases.remove_dead(traced.graph)  # sizes that were only looked at
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
    return _replaced(node, fx.node.map_arg(result, copies.__getitem__))


def _formula(target: Any) -> Callable[..., Any] | None:
    """What computes ``target`` by other operators, if PyTorch has it."""
    if not isinstance(target, OpOverload) or target._schema.is_mutable:
        return None
    if has_kernel(target.name(), "CompositeImplicitAutograd"):
        return target.decompose
    if torch.Tag.nondeterministic_seeded in target.tags or any(r.alias_info for r in target._schema.returns):
        return None
    spread = _IN_TWO.get(target.overloadpacket)
    if spread is not None and target._overloadname == "correction":
        return lambda x, dim=None, *, keepdim=False, **kwargs: (
            spread(x, dim, keepdim=keepdim, **kwargs),
            x.mean(dim, keepdim=keepdim),
        )
    return decomposition_table.get(target)


def _replaced(node: fx.Node, result: Any) -> bool:
    """Put ``result`` in the place of ``node`` in its graph: a node, or several of which the users of ``node`` take one each."""
    several = isinstance(result, (tuple, list))
    if not several and not isinstance(result, fx.Node) or several and any(u.target is not operator.getitem for u in node.users):
        return False
    for user in list(node.users) if several else ():
        user.replace_all_uses_with(result[user.args[1]])
        node.graph.erase_node(user)
    if not several:
        node.replace_all_uses_with(result)
    node.graph.erase_node(node)
    return True


def _writes_to(node: fx.Node, memories: set[int | None]) -> bool:
    written = written_operands(node) if node.op == "call_function" and is_operator(node.target) else ()
    return any(isinstance(value, fx.Node) and memory_of(value.meta["val"]) in memories for value in written)
