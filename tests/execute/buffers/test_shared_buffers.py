"""Numbers that each call hands to the graph, in memory that is written without an operator."""

from __future__ import annotations

import pytest
import torch

from fxpass.execute.buffers.shared_buffers import Numbers

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_numbers_are_those_of_the_last_call(count: int) -> None:
    with torch.inference_mode():
        numbers = Numbers(count, CPU)
    tensor = numbers.tensor
    assert tensor.shape == (count,) and tensor.dtype == torch.int64 and not tensor.is_inference()
    for first in (0, 7, -3, 2**62):
        numbers.put(range(first, first + count))
        assert tensor.tolist() == list(range(first, first + count)) and numbers.tensor is tensor


def test_the_memory_stays_where_it_is() -> None:
    numbers = Numbers(2, CPU)
    where = numbers._cells.buffer_info()  # type: ignore[union-attr]
    with pytest.raises(IndexError):
        numbers.put([1, 2, 3])
    with pytest.raises(OverflowError):
        numbers.put([0, 2**63])
    assert numbers.tensor.tolist() == [0, 2] and numbers._cells.buffer_info() == where  # type: ignore[union-attr]


def test_memory_lives_as_long_as_the_tensor() -> None:
    numbers = Numbers(1, CPU)
    numbers.put([5])
    tensor = numbers.tensor
    del numbers
    assert tensor.tolist() == [5]
