"""A condition on a small index tensor is decided by a guard; the value that Python goes on with is still eager's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import InternalTorchDynamoError
from torch._dynamo.utils import counters


def or_a_number(i: Tensor) -> Any:
    return (i[0] - 3) or 7


def or_another_element(i: Tensor) -> Any:
    return (i[0] - 3) or i[1]


def or_chain(i: Tensor) -> Any:
    return (i[0] - 3) or (i[0] - 4) or "neither"


def and_a_number(i: Tensor) -> Any:
    return (i[0] - 3) and 7


def and_another(i: Tensor) -> Any:
    return (i[0] > 3) and (i[1] > 3)


def and_or(i: Tensor) -> Any:
    return (i[0] > 3) and i[1] or i[0]


def chained(i: Tensor) -> Any:
    return 3 < i[0] < 5


def chained_thrice(i: Tensor) -> Any:
    return 2 < i[0] <= i[1] != 9


def a_chain_as_a_condition(i: Tensor) -> Any:
    return torch.where(3 < i[0] < 5, i, -i)


def a_number_of_or(i: Tensor) -> Any:
    return torch.ones(9)[: int((i[0] - 3) or 7)].sum()


def an_or_of_whole_tensors(i: Tensor) -> Any:
    return i[:1] or i


def what_or_gives_is_written(i: Tensor) -> Any:
    found = (i[:1] - 3) or i[1:]
    found += 5
    return found


def what_or_gives_is_the_index(i: Tensor) -> Any:
    found = i[1:] or i[:1]
    found += 1
    return found, i


def negated(i: Tensor) -> Any:
    return not (i[0] - 3)


def negated_twice(i: Tensor) -> Any:
    return not not (i[0] - 3)


def as_a_bool(i: Tensor) -> Any:
    return bool(i[0] > 3), bool(i[0] - 3)


def conditional(i: Tensor) -> Any:
    return i[0] if i[0] - 3 else i[1]


def branched(i: Tensor) -> Any:
    if i[0] > 3:
        return i + 1
    return i - 1


def looped(i: Tensor) -> Any:
    n, t = 0, i[0].clone()
    while t > 2:
        t = t - 1
        n += 1
    return n, t


def looped_until(i: Tensor) -> Any:
    t = i[0] * 1
    while not t > 5:
        t += 1
    return t


def walrus(i: Tensor) -> Any:
    if (t := i[0] - 3) and (u := t + 1) > 1:
        return t, u
    return t


def matched(i: Tensor) -> Any:
    match i[0]:
        case t if t > 4:
            return t
        case t:
            return t - 1


def all_of(i: Tensor) -> Any:
    return all([i[0] > 3, i[1] > 3]), any([i[0] > 3, i[1] > 3])


def any_of_a_generator(i: Tensor) -> Any:
    return any(t > 4 for t in i), all(t > 4 for t in i)


def largest(i: Tensor) -> Any:
    return max(i[0], i[1]), min(i[0], i[1])


def among_numbers(i: Tensor) -> Any:
    return i[0] in (4, 5), i[0] not in (4, 5)


def among_a_list(i: Tensor) -> Any:
    return i[0] in [3, 4]


def among_numbers_that_move(i: Tensor) -> Any:
    return i[0] in (4, int(i[1])), int(i[0]) in [6, int(i[1]) - 2]


def among_elements(i: Tensor) -> Any:
    return i[0] in (i[1], 6), 5 in [i[0], i[1]], i[1:] in [3, i[0]]


def among_words(i: Tensor) -> Any:
    return "a" in ["a", int(i[0])], i[0].item() in ("a", 5, None)


def among_other_things(i: Tensor) -> Any:
    return i[0] in (4, None), i[0] not in ("a", 5), i[0] in (4.0, True), True in [i[1] - 4, "b"]


def among_tensors(i: Tensor) -> Any:
    return 4 in i


def comprehended(i: Tensor) -> Any:
    return [t for t in i if t > 4]


def in_a_function(i: Tensor) -> Any:
    def either(t: Tensor) -> Any:
        return t - 3 or t

    return either(i[0]), either(i[1])


def in_a_dictionary(i: Tensor) -> Any:
    return {"at": i[0] - 3 or None}


CONDITIONS: list[Callable[[Tensor], Any]] = [
    or_a_number, or_another_element, or_chain, and_a_number, and_another, and_or, chained, chained_thrice,
    a_chain_as_a_condition, a_number_of_or, an_or_of_whole_tensors, what_or_gives_is_written, what_or_gives_is_the_index,
    negated, negated_twice, as_a_bool, conditional, branched, looped, looped_until, walrus, matched, all_of,
    any_of_a_generator, largest, among_numbers, among_a_list, among_numbers_that_move, among_elements, among_words,
    among_other_things, among_tensors, comprehended, in_a_function, in_a_dictionary,
]  # fmt: skip


def described(value: Any) -> Any:
    """``value`` with what tells two tensors apart."""
    if isinstance(value, Tensor):
        return "tensor", value.dtype, tuple(value.shape), value.tolist()
    if isinstance(value, (tuple, list)):
        return type(value), [described(v) for v in value]
    if isinstance(value, dict):
        return {k: described(v) for k, v in value.items()}
    return type(value), value


STARTS = [(start, other) for start in (3, 4, 5, 6, 3, 0, 5) for other in (0, 5)]


@torch.no_grad()
def run(step: Callable[[Tensor], Any], eager: Callable[[Tensor], Any]) -> None:
    for start, other in STARTS:
        ours, theirs = torch.tensor([start, other]), torch.tensor([start, other])
        expected = described(eager(theirs))
        assert (described(step(ours)), ours.tolist()) == (expected, theirs.tolist()), (start, other)


@torch._dynamo.config.patch(recompile_limit=32)
@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: c.__name__)
def test_value_and_type_are_those_of_eager(condition: Callable[[Tensor], Any]) -> None:
    run(torch.compile(condition, backend="kvfix", options={"compiler": "eager"}), condition)
    ours = sum(counters["graph_break"].values())
    torch._dynamo.reset()
    counters.clear()
    stock = torch.compile(condition, backend="eager")
    for start, other in STARTS:
        with contextlib.suppress(AssertionError, InternalTorchDynamoError):  # of `not not x`, on Python 3.13
            stock(torch.tensor([start, other]))  # where it gives a tensor for `in`, it has no break either
    assert ours <= sum(counters["graph_break"].values())


def told(x: Tensor, p: int) -> Any:
    return x[:p].sum(), p in (4, 6, None)


def chosen(x: Tensor, p: int) -> Any:
    return x[:p].sum() if p not in [4, 6, 8] else x[p] * 2


def read(x: Tensor, i: Tensor) -> Any:
    return x[: int(i[0])].sum(), i[0] in (4, 6), int(i[0]) in [4, int(i[1])]


@torch.no_grad()
@pytest.mark.parametrize(("step", "graphs"), [(told, 2), (chosen, 3), (read, 2)], ids=["told", "chosen", "read"])
def test_one_of_several_numbers_has_a_graph_for_its_outcome(step: Callable[..., Any], graphs: int) -> None:
    """And none for each of the numbers; where nothing branches on it, it is a result as in stock."""
    compiled, x = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.arange(16.0)
    for p in range(3, 10):
        at = torch.tensor([p, 5]) if step is read else p
        assert described(compiled(x, at)) == described(step(x, at))
    assert counters["stats"]["unique_graphs"] == graphs
