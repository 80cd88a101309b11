"""Sizes of tensors that are positions, since they tell where a cache is written, or how far it is read.

    end = mask.shape[1]; k[:, end - 1 : end] = x        a place at which rows are written
    q @ k[:, : mask.shape[1]].mT + mask                 how far a cache is read
    x = embed(prompt); q(x) @ k[:, : x.shape[1]].mT     none: the prompt itself is worked on, so its length moves anyway
    k[:, start : start + x.shape[1]] = x                none: the number of rows

A guard may have replaced a size by a position, as in ``mask.shape[1] == start + 1``. Such a size is a position if a cache is
sliced at it (`bounds_of_caches`).
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases
from fxpass.graph.bounds import slice_arguments, sliced_axis
from fxpass.graph.heavy_ops import is_heavy
from fxpass.graph.numbers import number, symbols
from fxpass.graph.values import is_tensor

aten = torch.ops.aten


def lengths(graph: fx.Graph, moving: Set[Any]) -> set[Any]:
    """The symbols among ``moving``, of sizes of inputs, that are positions in ``graph``."""
    places: set[Any] = set()
    others: set[Any] = set()
    rows: set[Any] = set()
    for node in graph.nodes:
        axis = sliced_axis(node)
        if axis is None or aliases.root(node).op != "placeholder":
            continue
        bounds = {s for i in node.all_input_nodes if not is_tensor(i) for s in symbols(i.meta["val"])} & moving
        if any(node in aliases.written(user) for user in node.users):
            places |= bounds - _sizes(node)
        others |= bounds - _sizes(axis[0])
        rows |= _sizes(node) if symbols(number(_start(node))) else set()
    return places | {size for size in others - places - rows if not _is_worked_on(graph, size)}


def bounds_of_caches(graph: fx.Graph, sizes: Set[fx.Node]) -> set[fx.Node]:
    """Those of ``sizes``, inputs of ``graph`` that are numbers, at which an input is sliced that does not have that size."""
    found: set[fx.Node] = set()
    for node in graph.nodes if sizes else ():
        axis = sliced_axis(node)
        if axis is not None and aliases.root(node).op == "placeholder":
            found |= {n for n in _numbers_behind(node) & sizes if not symbols(n.meta["val"]) & _sizes(axis[0])}
    return found


def _numbers_behind(node: fx.Node) -> set[fx.Node]:
    """The numbers that ``node`` takes, and those that they are made of."""
    found: set[fx.Node] = set()
    todo = [node]
    while todo:
        new = {n for n in todo.pop().all_input_nodes if not is_tensor(n)} - found
        found |= new
        todo += new
    return found


def _start(node: fx.Node) -> Any:
    return slice_arguments(node)[2] if node.target is aten.slice.Tensor else node.args[2]


def _is_worked_on(graph: fx.Graph, size: Any) -> bool:
    """Whether ops compute tensors with the symbol ``size`` from an input that has it. One of these ops must be heavy, unless no
    heavy op of ``graph`` takes or gives a tensor with the symbol."""
    made: set[fx.Node] = {node for node in graph.find_nodes(op="placeholder") if size in _sizes(node)}
    inputs = len(made)
    for node in graph.nodes:
        if size in _sizes(node) and not made.isdisjoint(node.all_input_nodes) and not _fills_a_cache(node, size):
            made.add(node)
    concerned = (n for n in graph.nodes if is_heavy(n) and any(size in _sizes(given) for given in (n, *n.all_input_nodes)))
    return any(map(is_heavy, made)) or len(made) > inputs and next(concerned, None) is None


def _fills_a_cache(node: fx.Node, size: Any) -> bool:
    """Whether ``node`` writes to an input that does not have the symbol ``size``."""
    roots = list(map(aliases.root, aliases.written(node)))
    return bool(roots) and all(root.op == "placeholder" and size not in _sizes(root) for root in roots)


def _sizes(node: fx.Node) -> set[Any]:
    value = node.meta.get("val")
    return {s for size in value.shape for s in symbols(size)} if isinstance(value, torch.Tensor) else set()
