"""An index vector written element by element becomes a value; one that is written in another way stays as it is."""

from __future__ import annotations

import pytest
import torch
from graphs import traced

from fxpass.execute.recording.index_vectors import as_value


def vector() -> torch.Tensor:
    return torch.tensor([3, 5, 7])


def taken(fn):
    """The graph of ``fn`` with its index vector as a value, or None where that is refused."""
    gm = traced(fn, [vector(), torch.ones(3)])
    idx = gm.graph.find_nodes(op="placeholder")[0]
    new = as_value(gm.graph, idx)
    if new is None:
        return None
    output = gm.graph.output_node()
    output.args = ((*output.args[0], new),)
    gm.graph.lint()
    gm.recompile()
    return gm


def reads_between(idx, x):
    start = idx[1]
    first = start * 10  # a view, still old
    idx[1] = idx[1] + 2
    idx[0] = idx[1]
    return first, start * 10, idx[1] + idx[0], idx[-1] * 1


def other_types(idx, x):
    idx[2] = (idx[2] + 1).to(torch.int32)
    idx[0] = torch.full([1], 9).sum()
    return (x * idx[2],)


@pytest.mark.parametrize("fn", [reads_between, other_types], ids=lambda fn: fn.__name__)
def test_elements_are_followed(fn) -> None:
    gm = taken(fn)
    assert not any("copy_" in str(n.target) and "_to_copy" not in str(n.target) for n in gm.graph.nodes)
    idx, untouched = vector(), vector()
    expected = [r.clone() for r in fn(idx, torch.ones(3))]
    *found, new = gm(untouched, torch.ones(3))
    assert torch.equal(untouched, vector())
    assert torch.equal(new, idx)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def whole_after_a_write(idx, x):
    idx[0] = idx[0] + 1
    return (idx.sum(),)


def as_a_whole(idx, x):
    idx += 1
    return (idx[0] * x,)


def through_a_slice(idx, x):
    idx[1:] = idx[1:] + 1
    return (idx[0] * x,)


def in_place_on_an_element(idx, x):
    idx[0].add_(1)
    return (idx[0] * x,)


REFUSED = [whole_after_a_write, as_a_whole, through_a_slice, in_place_on_an_element]


@pytest.mark.parametrize("fn", REFUSED, ids=lambda fn: fn.__name__)
def test_other_writes_are_left_alone(fn) -> None:
    assert taken(fn) is None


def test_the_whole_vector_before_any_write_may_be_read() -> None:
    def fn(idx, x):
        total = idx.sum()
        idx[0] = idx[0] + 1
        return (total,)

    gm = taken(fn)
    total, new = gm(vector(), torch.ones(3))
    assert (total.item(), new.tolist()) == (15, [4, 5, 7])


def test_a_select_at_a_number_of_the_graph_is_another_view() -> None:
    def fn(idx, x):
        idx[0] = idx[0] + 1
        return (idx[1] * x,)

    gm = traced(fn, [vector(), torch.ones(3)])
    idx, number = gm.graph.find_nodes(op="placeholder")
    read = [n for n in gm.graph.find_nodes(op="call_function", target=torch.ops.aten.select.int) if n.args[2] == 1][-1]
    read.args = (idx, 0, number)
    assert as_value(gm.graph, idx) is None
