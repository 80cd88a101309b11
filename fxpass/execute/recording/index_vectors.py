"""An index vector that is written element by element becomes a value.

    copy_(select(idx, 0, 1), end)            new = where(arange(2) == 1, end, idx)
    y = select(idx, 0, 1) + 1        ->      y = end + 1

The new contents are computed by pointwise ops, and so by one kernel, and not by a kernel for each layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpass.graph import aliases

aten = torch.ops.aten

MOST = 64
"""A longer vector is left as it is."""


def as_value(graph: fx.Graph, vector: fx.Node) -> fx.Node | None:
    """The new contents of the graph input ``vector``, whose writes are erased.

    None, with nothing changed, if it is no vector that is written by single elements.
    """
    if vector.meta["val"].dim() != 1 or vector.meta["val"].numel() > MOST:
        return None
    size = vector.meta["val"].numel()
    selects = [u for u in vector.users if u.target is aten.select.int and isinstance(u.args[2], int)]
    elements = {u: u.args[2] % size for u in selects}  # type: ignore[operator]
    if not _only_elements(graph, vector, set(elements)):
        return None
    new: dict[int, fx.Node] = {}
    for node in list(graph.nodes):
        if node.target is aten.copy_.default and node.args[0] in elements:
            source = node.args[1]
            node.update_arg(1, new.get(elements.get(source, -1), source))
            new[elements[node.args[0]]] = _source(graph, node)
            graph.erase_node(node)
            continue
        for element in [i for i in node.all_input_nodes if elements.get(i) in new]:
            node.replace_input_with(element, new[elements[element]])
    return _joined(graph, vector, new)


def _joined(graph: fx.Graph, vector: fx.Node, new: dict[int, fx.Node]) -> fx.Node:
    """``vector`` with the elements in ``new`` in the place of its own."""
    value, whole = vector.meta["val"], vector
    steps = torch.arange(value.numel(), device="meta")

    def call(target: Any, like: torch.Tensor, *args: Any, **kwargs: Any) -> fx.Node:
        node = graph.call_function(target, args, kwargs)
        node.meta["val"] = value.new_empty(like.shape, dtype=like.dtype)
        return node

    with graph.inserting_before(graph.output_node()):
        places = call(aten.arange.default, steps, value.numel(), device=value.device)
        for i, element in new.items():
            here = call(aten.eq.Scalar, steps == i, places, i)
            whole = call(aten.where.self, value, here, element, whole)
    return whole


def _only_elements(graph: fx.Graph, vector: fx.Node, elements: set[fx.Node]) -> bool:
    """Whether each write is a `copy_` of one number to one of ``elements``, there are no other views of the vector, and no op
    takes the whole vector after the first write."""
    memory, begun = aliases.storage(vector), False
    for node in graph.nodes:
        takes = {i for i in node.all_input_nodes if i is vector or i in elements}
        if not takes or node in elements:
            continue
        if takes & set(aliases.written(node)):
            source = node.args[1] if node.target is aten.copy_.default else None
            number = isinstance(source, fx.Node) and source.meta["val"].numel() == 1
            if not number or node.args[0] not in elements or node.users:
                return False
            if source.meta["val"].device != vector.meta["val"].device:  # type: ignore[union-attr]
                return False
            begun = True
        elif vector in takes and begun or aliases.storage(node) == memory:
            return False
    return begun


def _source(graph: fx.Graph, write: fx.Node) -> fx.Node:
    """What ``write`` writes, as a new 0-d tensor of the dtype of the vector."""
    source, value = write.args[1], write.args[0].meta["val"]  # type: ignore[union-attr]
    assert isinstance(source, fx.Node)
    with graph.inserting_before(write):
        if source.meta["val"].dim():
            inner, source = source, graph.call_function(aten.reshape.default, (source, []))
            source.meta["val"] = inner.meta["val"].reshape([])
        cast = graph.call_function(aten._to_copy.default, (source,), {"dtype": value.dtype})
    cast.meta["val"] = value.clone()
    return cast
