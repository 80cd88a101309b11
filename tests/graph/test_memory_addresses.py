"""Which tensors of a call share memory, whatever part of it each is."""

from __future__ import annotations

import torch

from fxpass.graph.memory_addresses import memory_address, memory_addresses


def test_a_part_has_the_address_of_all() -> None:
    whole, other = torch.zeros(4, 8), torch.zeros(4, 8)
    parts = [whole[2:, ::3], whole.mT, whole.view(torch.int32)]
    assert memory_addresses(parts) == {memory_address(whole)} != {memory_address(other)}


def test_what_has_no_memory_shares_none() -> None:
    empty, sparse = torch.zeros(0, 3), torch.eye(3).to_sparse()
    assert memory_address(empty) == memory_address(sparse) == 0
    assert memory_addresses([empty, sparse]) == set()
