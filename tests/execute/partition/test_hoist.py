"""What moves to the front, and what must not."""

from __future__ import annotations

import pytest
import torch
from graphs import same, traced

from fxpass.execute.partition.hoist import MOST, hoist

aten = torch.ops.aten


def order(fn, args) -> list[str]:
    gm = traced(fn, args)
    hoist(gm.graph)
    gm.graph.lint()
    gm.recompile()
    assert same(fn, gm, args)
    return [n.target.__name__.split(".")[0] for n in gm.graph.nodes if n.op == "call_function"]


def test_equal_small_ops_on_inputs_are_one_and_come_first() -> None:
    def fn(x, w, p):
        for _ in range(3):
            x = torch.nn.functional.linear(x, w) * torch.cos(p * 2)
        return (x,)

    assert order(fn, [torch.ones(2, 2), torch.ones(2, 2), torch.ones(())])[:2] == ["mul", "cos"]
    assert order(fn, [torch.ones(2, 2), torch.ones(2, 2), torch.ones(())]).count("cos") == 1


def test_products_that_add_up_nothing_move_and_what_has_two_results() -> None:
    def fn(x, w, p, f):
        for _ in range(3):
            largest = p.max(-1).values
            x = torch.nn.functional.linear(x, w) * torch.cos(torch.einsum("i,j->ij", p, f)).sum() + largest
        return (x,)

    names = order(fn, [torch.ones(2, 2), torch.ones(2, 2), torch.ones(1), torch.ones(4)])
    assert names.count("einsum") == names.count("cos") == names.count("max") == 1
    assert max(names.index(n) for n in ("einsum", "cos", "max")) < names.index("linear")


def test_what_is_needed_in_one_place_stays_there() -> None:
    """It goes into the kernel that takes it, unless that is a product."""

    def fn(x, w, a, b):
        for scale in (a, b):
            x = torch.nn.functional.linear(x, w) * scale.exp().sin()
        return (x,)

    def of_products(x, w, a, b):
        for scale in (a, b):
            x = torch.nn.functional.linear(x, w * scale)
        return (x,)

    inputs = [torch.ones(2, 2), torch.ones(2, 2), torch.ones(2), torch.ones(())]
    assert order(fn, inputs) == ["linear", "exp", "sin", "mul"] * 2
    assert order(of_products, inputs) == ["mul", "mul", "linear", "linear"]


def test_buffers_that_are_filled_stay_two() -> None:
    def fn(x):
        a, b = torch.zeros(2), torch.zeros(2)
        a += x
        b += 2 * x
        return a, b

    assert order(fn, [torch.ones(2)]).count("zeros") == 2


def test_what_reads_memory_that_is_written_stays() -> None:
    def fn(x, w, cache):
        before = cache.sum()
        y = torch.nn.functional.linear(x, w)
        cache.add_(1)
        return y + before, y * cache.sum()

    names = order(fn, [torch.ones(2, 2), torch.ones(2, 2), torch.ones(2)])
    assert names.index("add_") < len(names) - 1 - names[::-1].index("sum")


def test_large_and_random_results_and_products_stay() -> None:
    def fn(x, large, w):
        y = torch.sin(x)
        return y, large.to(torch.float64), torch.nn.functional.linear(x, w)

    names = order(fn, [torch.ones(2, 2), torch.ones(MOST + 1), torch.ones(2, 2)])
    assert names == ["sin", "to", "linear"]

    def noise(x):
        return x + 1, torch.rand(2), torch.rand(2)

    gm = traced(noise, [torch.ones(2)])
    hoist(gm.graph)
    assert sum(n.target is aten.rand.default for n in gm.graph.nodes) == 2


@pytest.mark.parametrize(
    "shown", [lambda z: z, lambda z: z[:1], lambda z: z.expand(3, 2), lambda z: z.to(torch.float64)]
)
def test_what_the_caller_gets_stays_two(shown) -> None:
    """It may write to one of them; what is made of one tensor alone may be left out as a copy, later on."""

    def fn(x):
        return x + torch.zeros(1, 2), shown(torch.zeros(1, 2)), shown(torch.zeros(1, 2))

    assert order(fn, [torch.ones(2)]).count("zeros") == 3


def test_operators_of_others_stay_two() -> None:
    """They may draw random numbers and not say so."""
    with torch.library._scoped_library("kvfix_tests", "FRAGMENT") as library:
        library.define("drawn(Tensor x) -> Tensor")
        library.impl("drawn", lambda x: x + 1, "CompositeExplicitAutograd")
        library.impl("drawn", lambda x: torch.empty_like(x), "Meta")

        def fn(x):
            return (torch.ops.kvfix_tests.drawn(x) * torch.ops.kvfix_tests.drawn(x),)

        assert order(fn, [torch.ones(2)]).count("drawn") == 2


def test_results_that_no_layer_needs_are_computed_at_once() -> None:
    def fn(x, w, a, b):
        results = []
        for count in (a, b):
            x = torch.nn.functional.linear(x, w)
            results.append(count + 1)
        return x, *results

    inputs = [torch.ones(2, 2), torch.ones(2, 2), torch.ones(2), torch.ones(2) * 3]
    assert order(fn, inputs) == ["add", "add", "linear", "linear"]
