"""A slice that comes to be the whole cache is one like the others.

    k[:, :p + 1] * 2                    before it makes a result, PyTorch asks whether the slice is contiguous: p + 1 != S
    k[:, :p + 1].reshape(-1, D)         so does this: a copy of the slice, or a view of the cache

Each answer would be a guard, and the step that fills the cache a graph of its own. What such an op computes is the same with
either answer, so it is noted here, and not guarded on. Only whether a tensor lies in the cache's memory depends on it. Where a
graph can tell, since it writes while the tensor is in use or returns it, the guards are made (`guard_if_told`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import sympy
import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.numbers import hint, to_expr
from fxpass.graph.schemas import may_be_views
from fxpass.torch_internals import patches
from fxpass.torch_internals.operators import tree_leaves
from fxpass.torch_internals.patches import patch
from fxpass.torch_internals.retrace import is_retracing

from .compilation import FullSlice, current_compilation
from .own_numbers import always_holds, count, from_the_least_on

_ON_THE_WAY = {__file__, patches.__file__}
"""The files through which each guard comes by the hook. Torch takes the first other one for where the guard comes from."""

_runs: ContextVar[bool] = ContextVar("runs", default=False)
"""Whether Dynamo runs an op that takes fake tensors."""


def install() -> None:
    """Install the hooks, which act while a frame is compiled for kvfix."""
    patch("torch._dynamo.utils.run_node", _run_node)
    patch("torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_expr", _evaluate)
    patch("torch.fx.experimental.symbolic_shapes.uninteresting_files", _uninteresting_files)


def _uninteresting_files(stock: Callable[[], set[str]]) -> set[str]:
    return stock() | _ON_THE_WAY


def note_ends(tensor: fx.Node, bounds: Mapping[int, slice]) -> None:
    """Note the slices ``bounds`` of ``tensor``, by dim, that end at a symbol and may come to be all of it."""
    compilation = current_compilation()
    if compilation is None:
        return
    for dim, bound in bounds.items():
        size = tensor.meta["example_value"].shape[dim]
        begins = not isinstance(bound.start, fx.Proxy) and not bound.start
        stop = bound.stop.node.meta["example_value"] if isinstance(bound.stop, fx.Proxy) else None
        if begins and isinstance(stop, torch.SymInt) and hint(stop) is not None and hint(size) > 1:
            slices = compilation.full_slices.setdefault(stop.node.shape_env, FullSlice())
            slices.ends.add((to_expr(stop), sympy.sympify(to_expr(size))))


def guard_if_told(graph: fx.Graph) -> None:
    """Guard on what has only been noted, if it makes a difference in ``graph``, which is in normal form."""
    compilation = current_compilation()
    if compilation is not None and any(_tells(node) for node in graph.nodes):
        for env, slices in compilation.full_slices.items():
            slices.ends.clear()
            for condition in slices.asked:
                env.evaluate_expr(condition)


def _run_node(stock: Callable[..., Any], tracer: Any, node: Any, args: Any, kwargs: Any, *rest: Any) -> Any:
    of_tensors = any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs)))
    token = _runs.set(of_tensors)  # what an op asks of numbers alone, `torch._check`, is the model's own question
    try:
        return stock(tracer, node, args, kwargs, *rest)
    finally:
        _runs.reset(token)


def _evaluate(stock: Callable[..., Any], env: Any, condition: Any, *args: Any, **kwargs: Any) -> Any:
    compilation = current_compilation() if _runs.get() or is_retracing() else None
    slices = compilation.full_slices.get(env) if compilation is not None else None
    is_guarded = isinstance(condition, (sympy.Eq, sympy.Ne)) and not env._suppress_guards_tls()
    if slices is None or not is_guarded or not _is_of_ends(env, condition, slices):
        return stock(env, condition, *args, **kwargs)
    with env.suppress_guards():
        answer = stock(env, condition, *args, **kwargs)
    if bool(answer) is isinstance(condition, sympy.Eq):  # the slice is all of the cache now
        return stock(env, condition, *args, **kwargs)
    slices.asked.add(condition)
    return answer


def _is_of_ends(env: Any, condition: Any, slices: FullSlice) -> bool:
    """Whether the sides of ``condition`` are sure to differ as long as one of the ``slices`` is not all of its axis."""
    differ, symbols = sympy.Ne(*condition.args, evaluate=False), condition.free_symbols
    return any(always_holds(differ, {moving: room}, from_the_least_on(env, symbols | room.free_symbols))
               for end, size in slices.ends for moving, room in _rooms(end, size) if moving in symbols)  # fmt: skip


def _rooms(end: Any, size: Any) -> Iterator[tuple[Any, Any]]:
    """Each symbol of ``end`` by itself, with what it is where ``end`` is less than ``size``."""
    for symbol in end.free_symbols:
        rest = sympy.expand(end - symbol)
        if symbol not in rest.free_symbols | size.free_symbols:
            yield symbol, size - 1 - count("room") - rest


def _tells(node: fx.Node) -> bool:
    """Whether ``node`` copies its operand where it might give a view of it, and the graph tells these two apart."""
    if not may_be_views(node) or aliases.base(node) is not None:
        return False
    order = {n: i for i, n in enumerate(node.graph.nodes)}
    memory = {s for operand in node.all_input_nodes for s in aliases.storages(operand)} | aliases.storages(node)
    users = aliases.view_users(node)
    last = max((order[user] for user in users), default=0)
    writes = [n for n in node.graph.nodes for w in aliases.written(n) if memory & aliases.storages(w)]
    return any(u.op == "output" for u in users) or any(order[node] < order[w] <= last for w in writes)
