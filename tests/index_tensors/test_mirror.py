"""The host mirror reads an index tensor once, and again only when somebody else has written it."""

from __future__ import annotations

import math

import pytest
import torch

from fxpass.index_tensors import mirror


def test_a_second_read_does_not_touch_the_tensor() -> None:
    tensor = torch.tensor([3, 5])
    assert [mirror.read(tensor, 0), mirror.read(tensor, 1)] == [3, 5]
    assert (mirror.counters.refreshes, mirror.counters.hits) == (1, 1)


def test_a_write_is_seen() -> None:
    tensor = torch.tensor([3, 5])
    mirror.read(tensor, 0)
    tensor[0] = 7
    assert mirror.read(tensor, 0) == 7
    assert mirror.counters.refreshes == 2


def test_advance_replaces_a_read() -> None:
    tensor = torch.tensor([3, 5])
    mirror.read(tensor, 0)
    tensor += 1
    mirror.advance(tensor, [4, 6])
    assert mirror.values(tensor) == (4, 6)
    assert mirror.counters.refreshes == 1


def test_another_tensor_at_the_same_id_is_another_tensor() -> None:
    tensor = torch.tensor([3])
    mirror.read(tensor, 0)
    entry = mirror._entries[id(tensor)]
    other = torch.tensor([9])
    mirror._entries[id(other)] = entry
    assert mirror.read(other, 0) == 9


def test_host_memory_written_behind_pytorch_is_seen() -> None:
    tensor = torch.tensor([3])
    mirror.read(tensor, 0)
    tensor.numpy()[0] = 8
    assert mirror.read(tensor, 0) == 8


def test_inference_tensors_are_read_each_time() -> None:
    with torch.inference_mode():
        tensor = torch.tensor([3])
        mirror.read(tensor, 0)
        tensor += 1
        assert mirror.read(tensor, 0) == 4


def test_a_dead_tensor_is_forgotten() -> None:
    tensor = torch.tensor([3])
    mirror.read(tensor, 0)
    del tensor
    assert not mirror._entries


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)], ids=str)
def test_tensors_of_every_shape_are_read_in_order(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(6)[: math.prod(shape)].reshape(shape)
    assert mirror.values(tensor) == tuple(tensor.reshape(-1).tolist())
    if len(shape) == 2:
        assert mirror.values(tensor.T) == tuple(tensor.T.reshape(-1).tolist())
