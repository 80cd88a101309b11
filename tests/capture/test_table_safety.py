"""What the table must not believe: every way to write to an index tensor that its rules do not cover."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_table import contents, traced
from torch import Tensor

from fxpass.capture.table import Table


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


WRITES = [a_custom_operator, an_argument_called_out, a_view_without_a_rule, a_cast_that_is_no_copy,
          an_overload_without_a_rule, an_operator_in_place]  # fmt: skip


@pytest.mark.parametrize("write", WRITES, ids=lambda w: w.__name__)
def test_right_or_unknown(write: Callable[[Tensor], None]) -> None:
    before = torch.tensor([3, 5])
    after = before.clone()
    write(after)
    graph, (placeholder,) = traced(write, before)
    known = Table.of(graph).contents(placeholder)
    assert known is None or contents(write, before) == [tuple(after.tolist())]


def divided(idx: Tensor) -> None:
    idx[0] = idx[1] // 2 + idx[1] % 3


def joined(idx: Tensor) -> None:
    idx.copy_(torch.cat([idx[1:], idx[:1]]) + torch.stack([idx[0], idx[1]]))


def clamped(idx: Tensor) -> None:
    idx.copy_(torch.clamp(idx, min=4, max=6))


def ranged(idx: Tensor) -> None:
    idx.copy_(torch.arange(2, 4).flip(0) if False else torch.arange(2, 4) + idx)


@pytest.mark.parametrize("write", [divided, joined, clamped, ranged], ids=lambda w: w.__name__)
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
