"""What the table must not believe: every way to write to an index tensor that its rules do not cover."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_table import contents, traced
from torch import Tensor

from fxpass.index_tensors.table import Table


@torch.library.custom_op("kvfix_tests::advance", mutates_args={"index"})
def advance(index: Tensor, by: int) -> None:
    index.add_(by)


@advance.register_fake
def _(index: Tensor, by: int) -> None:
    return None


def a_custom_operator(idx: Tensor) -> None:
    advance(idx, 2)


def an_argument_called_out(idx: Tensor) -> None:
    torch.add(idx, 1, out=idx)


def a_view_without_a_rule(idx: Tensor) -> None:
    idx.as_strided((1,), (1,)).add_(1)


def a_cast_that_is_no_copy(idx: Tensor) -> None:
    same = idx.to(torch.int64)
    idx.add_(1)
    same.mul_(2)


def an_overload_without_a_rule(idx: Tensor) -> None:
    idx.add_(1, alpha=3)


def an_operator_in_place(idx: Tensor) -> None:
    idx ^= 1  # noqa: F841


def a_mapped_function(idx: Tensor) -> None:
    torch.vmap(lambda element: element.add_(1))(idx)


def a_factory_with_out(idx: Tensor) -> None:
    torch.arange(2, out=idx)


def in_place_by_its_place(idx: Tensor) -> None:
    torch.nn.functional.relu(idx.sub_(4), True)


def between_bounds_by_its_place(idx: Tensor) -> None:
    torch.nn.functional.hardtanh(idx, 1, 3, True)


def a_threshold_by_its_place(idx: Tensor) -> None:
    torch.nn.functional.threshold(idx, 4, 0, True)


def a_result_by_its_place(idx: Tensor) -> None:
    torch.functional.tensordot(idx, idx, 0, idx.new_empty(2, 2))
    torch.functional.tensordot(idx.clone(), torch.tensor(2), 0, idx)


WRITES = [
    in_place_by_its_place,
    between_bounds_by_its_place,
    a_threshold_by_its_place,
    a_result_by_its_place,
    a_mapped_function,
    a_custom_operator,
    an_argument_called_out,
    a_factory_with_out,
    a_view_without_a_rule,
    a_cast_that_is_no_copy,
    an_overload_without_a_rule,
    an_operator_in_place,
]


@pytest.mark.parametrize("write", WRITES, ids=lambda w: w.__name__)
def test_what_has_no_rule_leaves_nothing_known(write: Callable[[Tensor], None]) -> None:
    graph, (placeholder,) = traced(write, torch.tensor([3, 5]))
    assert Table.of(graph).contents(placeholder) is None


def divided(idx: Tensor) -> None:
    idx[0] = idx[1] // 2 + idx[1] % 3


def joined(idx: Tensor) -> None:
    idx.copy_(torch.cat([idx[1:], idx[:1]]) + torch.stack([idx[0], idx[1]]))


def clamped(idx: Tensor) -> None:
    idx.copy_(torch.clamp(idx, min=4, max=6))


def ranged(idx: Tensor) -> None:
    idx.copy_(torch.arange(2, 4).flip(0) if False else torch.arange(2, 4) + idx)


def through_data(idx: Tensor) -> None:
    idx.data[1:] += 2


@pytest.mark.parametrize("write", [divided, joined, clamped, ranged, through_data], ids=lambda w: w.__name__)
def test_followed(write: Callable[[Tensor], None]) -> None:
    before = torch.tensor([3, 5])
    after = before.clone()
    write(after)
    assert contents(write, before) == [tuple(after.tolist())]


def test_a_write_to_something_else_is_no_loss() -> None:
    def step(idx: Tensor, data: Tensor) -> None:
        data.index_copy_(0, idx, torch.ones(2))
        idx.add_(1)

    graph, inputs = traced(step, torch.tensor([0, 1]), torch.zeros(4))
    (idx,) = [n for n in inputs if n.meta["example_value"].dtype is torch.int64]
    assert Table.of(graph).contents(idx) is not None


def a_float_fill(idx: Tensor) -> None:
    idx.fill_(3.7)


def a_float_element(idx: Tensor) -> None:
    idx[0] = 2.9


def a_comparison(idx: Tensor) -> None:
    idx.copy_(idx == 3)


def a_sum_of_comparisons(idx: Tensor) -> None:
    idx[1] = ((idx == 3) + (idx == 3)).sum()


def an_overflow(idx: Tensor) -> None:
    idx.copy_(idx.to(torch.int32) * 1_000_000_000)


def an_overflow_and_back(idx: Tensor) -> None:
    small = idx.to(torch.int32) + (2**31 - 5)
    idx.copy_((small // 2).to(torch.int64))


def a_comparison_as_a_number(idx: Tensor) -> None:
    idx[1] = (idx[0] > 4).long()


NUMBERS = [a_float_fill, a_float_element, a_comparison, a_sum_of_comparisons, an_overflow, an_overflow_and_back,
           a_comparison_as_a_number]  # fmt: skip
FOLLOWED = [an_overflow, an_overflow_and_back, a_comparison_as_a_number]
"""The others hold what is no integer on the way, and are not followed."""


@pytest.mark.parametrize("write", NUMBERS, ids=lambda w: w.__name__)
def test_numbers_are_those_of_the_dtype(write: Callable[[Tensor], None]) -> None:
    before = torch.tensor([3, 5])
    after = before.clone()
    write(after)
    graph, (placeholder,) = traced(write, before)
    if write in FOLLOWED:
        assert contents(write, before) == [tuple(after.tolist())]
    else:
        assert Table.of(graph).contents(placeholder) is None


@pytest.mark.parametrize("write", NUMBERS, ids=lambda w: w.__name__)
def test_an_item_is_that_of_the_dtype(write: Callable[[Tensor], None]) -> None:
    """The number in a tensor after ``write``, or a graph break."""

    def step(idx: Tensor) -> int:
        write(idx)
        return idx[1].item()

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for start in range(3, 7):
        eager, own = torch.tensor([start, 5]), torch.tensor([start, 5])
        assert (step(eager), eager.tolist()) == (found := compiled(own), own.tolist()), start
        assert type(found) is int


def test_a_position_that_overflows_its_tensor() -> None:
    """As it moves, the number that is read leaves 32 bits: eager's wraps around."""

    def step(idx: Tensor) -> int:
        idx.add_(2**29)
        return (idx[0] * 2).item()

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    eager, own = torch.tensor([1], dtype=torch.int32), torch.tensor([1], dtype=torch.int32)
    for i in range(12):
        assert (step(eager), eager.tolist()) == (compiled(own), own.tolist()), i
