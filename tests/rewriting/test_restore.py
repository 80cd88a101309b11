"""The edits of a graph can be undone, from the first one on."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from fxpass.rewriting.restore import Restorable


def halves(x: Tensor) -> Tensor:
    return torch.relu(x) + x / 2


def test_edits_are_undone_and_nodes_are_found_again() -> None:
    gm = fx.symbolic_trace(halves)
    before, relu = str(gm.graph), next(iter(gm.graph.find_nodes(op="call_function", target=torch.relu)))
    restorable = Restorable(gm)
    restorable.copy_once()
    relu.replace_all_uses_with(relu.args[0])
    gm.graph.erase_node(relu)
    restorable.copy_once()  # there is a copy already, from before the edit
    assert str(gm.graph) != before
    nodes = restorable.undo()
    assert str(gm.graph) == before and nodes[relu] in gm.graph.nodes
    gm.recompile()
    assert torch.equal(gm(torch.tensor([-2.0, 2.0])), torch.tensor([-1.0, 3.0]))


def test_without_a_copy_nothing_is_undone() -> None:
    gm = fx.symbolic_trace(halves)
    graph = gm.graph
    assert Restorable(gm).undo() == {} and gm.graph is graph
