"""Calls are put into a graph with the value that they give, and with the user's line of the node that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

_STANDS_FOR = "kvfix_stands_for"


def call(graph: fx.Graph, target: Any, *args: Any, like: torch.Tensor | None = None, **kwargs: Any) -> fx.Node:
    """A new call of ``target`` at the insertion point of ``graph``. Its value is computed from those of its operands, or is
    ``like``."""
    made = graph.call_function(target, args, kwargs)
    if like is None:
        given, named = fx.node.map_arg((made.args, made.kwargs), lambda n: n.meta["val"])
        like = target(*given, **named)
    made.meta["val"] = like
    return made


def size_argument(call: Callable[..., fx.Node], x: fx.Node, dim: int) -> Any:
    """The size of ``x`` along ``dim`` as an argument: an int, or the node that ``call(aten.sym_size.int, x, dim)`` makes."""
    size = x.meta["val"].shape[dim]
    return size if isinstance(size, int) else call(torch.ops.aten.sym_size.int, x, dim)


def arithmetic(call: Callable[..., fx.Node], fn: Callable[..., Any], *numbers: Any) -> Any:
    """``fn(*numbers)`` as an argument: an int where all ``numbers`` are ints, or the node that ``call(fn, *numbers)`` makes."""
    return call(fn, *numbers) if any(isinstance(n, fx.Node) for n in numbers) else fn(*numbers)


def stand_for(made: fx.Node, node: fx.Node) -> None:
    """Note that ``made`` replaces ``node``, whose name the report knows."""
    made.meta[_STANDS_FOR] = node.name


def name_before(node: fx.Node) -> str:
    """The name of ``node``, or of the node that it has replaced, in the graph as it came."""
    name: str = node.meta.get(_STANDS_FOR, node.name)
    return name


def take_line(made: fx.Node, node: fx.Node) -> None:
    """Give ``made`` the user's line, and the module, that ``node`` comes from."""
    made.meta.update({k: node.meta[k] for k in ("stack_trace", "nn_module_stack") if k in node.meta})
