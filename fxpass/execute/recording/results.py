"""The results that a recorded graph gives its caller.

The next step overwrites the memory of a recording, so the caller gets copies. Results share memory as they would without a
recording: a view of a graph input is made from the input, and results that share memory are views of one copy.

    return h, cache[0], h[:, -1]        ->        new = copy of h; return new, cache[0], new[:, -1]
"""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.execute.partition.split import Part
from fxpass.graph import aliases

_CONVERSIONS = (torch.ops.aten.to, torch.ops.aten.type_as, torch.ops.aten.contiguous)


def views_of_inputs(gm: fx.GraphModule, results: Sequence[Any]) -> list[fx.Node]:
    """Those of ``results`` of ``gm`` that are views of an input."""
    memory = _of_inputs(gm) - {None}
    return [r for r in _nodes(results) if r.op != "placeholder" and aliases.storage(r) in memory]


def recorded_results(gm: fx.GraphModule, parts: Sequence[Part], results: Sequence[Any]) -> list[list[fx.Node]]:
    """Those of ``results`` of ``gm`` that lie in the memory of a recording, grouped by shared memory."""
    recorded = {aliases.storage(n) for part in parts if part.static for n in part.outputs}
    recorded -= _of_inputs(gm) | {None}
    groups: defaultdict[Any, list[fx.Node]] = defaultdict(list)
    for result in _nodes(results):
        if aliases.storage(result) in recorded:
            groups[aliases.storage(result)].append(result)
    return list(groups.values())


def _of_inputs(gm: fx.GraphModule) -> set[int | None]:
    return {aliases.storage(p) for p in gm.graph.find_nodes(op="placeholder")}


def _nodes(results: Sequence[Any]) -> list[fx.Node]:
    return list(dict.fromkeys(r for r in results if isinstance(r, fx.Node)))


def view_maker(node: fx.Node, places: Mapping[fx.Node, int]) -> Callable[[Sequence[Any]], Any]:
    """A function that makes the view ``node`` of an input, by the ops of the graph, from the values of a call, among which the
    inputs are at ``places``."""
    if node in places:
        return operator.itemgetter(places[node])
    if targets := aliases.written(node) or _unchanged(node):
        return view_maker(targets[0], places)  # an in-place op returns its target
    makers = {operand: view_maker(operand, places) for operand in node.all_input_nodes}

    def make(values: Sequence[Any]) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: makers[n](values))
        return node.target(*args, **kwargs)  # type: ignore[operator]

    return make


def _unchanged(node: fx.Node) -> list[fx.Node]:
    """The operand that ``node`` is itself, as a list: a conversion that has nothing to convert returns its operand."""
    operand = node.args[0] if getattr(node.target, "overloadpacket", None) in _CONVERSIONS else None
    return [operand] if isinstance(operand, fx.Node) and aliases.storage(operand) == aliases.storage(node) else []


def copy_at(values: list[Any], places: Sequence[Sequence[int]]) -> None:
    """Replace the values at ``places`` by copies. Values of one group share memory, and so do their copies."""
    copied = copied_groups([[values[i] for i in group] for group in places])
    for place, value in zip(itertools.chain(*places), copied, strict=True):
        values[place] = value


def copied_groups(groups: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """Copies of the tensors of ``groups``, one after the other, with their strides. The tensors of a group share memory, and so
    do their copies."""
    found: list[torch.Tensor] = []
    for group in groups:
        if len(group) == 1 and (copy := group[0].clone()).stride() == group[0].stride():
            found.append(copy)
            continue
        memory = group[0].untyped_storage().clone()
        found += [t.new_empty(0).set_(memory, t.storage_offset(), t.size(), t.stride()) for t in group]
    return found
