"""Index tensors are carried through a recording as values."""

from __future__ import annotations

import torch
from graphs import traced

from fxpass.execute.partition.split import dependencies
from fxpass.execute.recording.carry import carry_indices
from fxpass.graph.aliases import written_inputs


def test_an_index_tensor_enters_and_leaves_as_a_value() -> None:
    def step(idx, cache):
        cache.add_(idx[0])
        idx[0] = idx[0] + 2
        return (cache.sum(),)

    gm = traced(step, [torch.tensor([1, 2]), torch.zeros(3)])
    carried = carry_indices(gm)
    assert [p.name for p in carried] == ["idx_1"]
    idx, cache = torch.tensor([1, 2]), torch.zeros(3)
    total, new = gm(idx, cache)
    assert (idx.tolist(), new.tolist()) == ([1, 2], [3, 2])
    assert cache.tolist() == [1, 1, 1]
    assert total.item() == 3


def test_what_is_carried_as_a_copy_keeps_its_order() -> None:
    """The views of the index are views of the copy: a write through one comes after an earlier read of it."""

    def step(idx, cache):
        cache.index_copy_(0, idx.clone(), cache[:2] + 1)
        idx[:1].add_(2)
        return (cache.sum(),)

    gm = traced(step, [torch.tensor([1, 2]), torch.zeros(3)])
    (carried,) = carry_indices(gm)
    (copy,) = carried.users
    read, write = (
        next(n for n in gm.graph.nodes if str(n.target).startswith(op)) for op in ("aten.clone", "aten.add_")
    )
    read = next(n for n in copy.users if n.target is read.target)
    assert read in dependencies(gm.graph)[write]
    assert copy not in written_inputs(gm.graph) and carried not in written_inputs(gm.graph)
