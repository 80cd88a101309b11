"""A kernel reads what a copy was made of, unless that is written to before the kernel runs."""

from __future__ import annotations

import pytest
import torch
from graphs import traced
from torch import fx

from fxpass.kernels.launches.memory_writes import MemoryWrites
from fxpass.kernels.select import _uncopied

aten = torch.ops.aten


def read(function) -> tuple[fx.Node, fx.Node]:
    """What the product in ``function`` may read for the copy that it takes, and what was copied."""
    gm = traced(function, [torch.ones(3, 4, 4), torch.ones(4, 4)])
    (product,) = gm.graph.find_nodes(op="call_function", target=aten.matmul.default)
    copy = product.args[0]
    assert copy.target is aten.clone.default
    return _uncopied(copy, product, MemoryWrites(gm.graph)), copy.args[0]


def late(x, y):
    copy = x[0].clone()
    product = copy @ y
    x.add_(1)
    return product


def early(x, y):
    x.add_(1)
    return x[0].clone() @ y


def elsewhere(x, y):
    copy = x[0].clone()
    y.add_(1)
    return copy @ y


@pytest.mark.parametrize("function", [late, early, elsewhere])
def test_what_was_copied_is_read(function) -> None:
    found, source = read(function)
    assert found is source


def through_a_view(x, y):
    copy = x[0].clone()
    x.view(-1)[3:].mul_(2)
    return copy @ y


def to_the_copy(x, y):
    copy = x[0].clone()
    copy.view(-1)[3:].mul_(2)
    return copy @ y


def by_an_op_that_does_not_say_so(x, y):
    copy = x[0].clone()
    torch.batch_norm(y[None], None, None, x[0, 0], x[0, 1], True, 0.1, 1e-5, False)
    return copy @ y


@pytest.mark.parametrize("function", [through_a_view, to_the_copy, by_an_op_that_does_not_say_so])
def test_a_copy_is_read_where_one_of_both_is_written_to(function) -> None:
    found, source = read(function)
    assert found is not source
