"""The results that a recorded graph gives its caller.

The next step overwrites the memory of a recording, so the caller gets copies. Results share memory as they would without a
recording: a view of a graph input is made from the input, and results that share memory are views of one copy.

    return h, cache[0], h[:, -1]        ->        new = copy of h; return new, cache[0], new[:, -1]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fxpass.execute.partition.split import Part
from fxpass.graph import aliases


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


def rebuilt_view(node: fx.Node, given: Mapping[fx.Node, Any]) -> Any:
    """The view ``node`` of an input, made from the inputs ``given`` by the ops of the graph."""
    if node in given:
        return given[node]
    targets = aliases.written(node)
    if targets:
        return rebuilt_view(targets[0], given)  # an in-place op returns its target
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: rebuilt_view(n, given))
    return node.target(*args, **kwargs)  # type: ignore[operator]


def copied_groups(groups: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """Copies of the tensors of ``groups``, one after the other. The tensors of a group share memory, and so do their copies."""
    found: list[torch.Tensor] = []
    for group in groups:
        if len(group) == 1:
            found.append(group[0].clone())
            continue
        memory = group[0].untyped_storage().clone()
        found += [t.new_empty(0).set_(memory, t.storage_offset(), t.size(), t.stride()) for t in group]
    return found
