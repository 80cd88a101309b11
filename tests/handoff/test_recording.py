"""Around a recording: index tensors carried through it as values, results in memory of their own."""

from __future__ import annotations

import torch
from graphs import traced

from fxpass.handoff import carry_indices
from fxpass.handoff.recording import copy_out


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


def test_results_are_copies_and_values_are_written_back() -> None:
    pool, idx, new = torch.rand(3), torch.tensor([1]), torch.tensor([4])
    first, second, number = copy_out([pool, pool, 7], [(idx, new)])
    assert torch.equal(first, pool) and first is second
    assert first.data_ptr() != pool.data_ptr()
    assert (idx.item(), number) == (4, 7)
