"""Regions compile themselves for what they meet, and never run code compiled for something else."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable

import pytest
import torch
from graphs import traced_growing

import fxpass
from fxpass import KvfixWarning
from fxpass.execute.compilation.regions import Region, _predicate, unviewed
from fxpass.execute.partition.split import split
from fxpass.graph.numbers import symbols


def compiler(log):
    def compile(gm, fakes, static):
        log.append(([tuple(f.shape) if isinstance(f, torch.Tensor) else f for f in fakes], static))
        return gm.forward

    return compile


def test_a_growing_part_is_compiled_once() -> None:
    gm = traced_growing(lambda series: (series / series.sum(),), torch.rand(6, 4))
    log: list = []
    region = Region(split(gm, set())[0], compiler(log))
    for size in (6, 7, 9):
        series = torch.rand(size, 4)
        torch.testing.assert_close(region([series])[0], series / series.sum())
    assert len(log) == 1
    assert log[0][1] is None


def test_the_symbol_of_a_growing_size_is_an_input() -> None:
    """As in a graph of Dynamo's: Inductor need not read it from the tensor."""
    gm = traced_growing(lambda series: (series + series.sum(),), torch.rand(6, 4))
    given: list = []

    def compile(gm, fakes, static):
        given.extend(fakes)
        return lambda *args: (numbers.append(args[1:]), gm.forward(*args))[1]

    numbers: list = []
    region = Region(split(gm, set())[0], compile)
    for size in (6, 7):
        region([torch.rand(size, 4)])
    series, number = given
    assert number.node.expr == series.shape[0].node.expr
    assert numbers == [(6,), (7,)]


def test_a_size_of_one_is_not_taken_for_all_sizes() -> None:
    gm = traced_growing(lambda series: (series / series.sum(),), torch.rand(6, 4))
    log: list = []
    region = Region(split(gm, set())[0], compiler(log))
    for size in (1, 3, 1, 5):
        region([torch.rand(size, 4)])
    assert len(log) == 2


def test_a_static_part_is_compiled_for_each_capacity() -> None:
    gm = traced_growing(lambda cache, weight: (torch.nn.functional.linear(cache, weight),), torch.rand(6, 4), torch.rand(3, 4))
    size = next(n for n in gm.graph.nodes if n.op == "placeholder").meta["val"].shape[0]
    (part,) = split(gm, set(size.node.expr.free_symbols))
    assert part.static
    log: list = []
    region = Region(part, compiler(log))
    weight = torch.rand(3, 4)
    for capacity in (6, 8, 6, 8):
        region([torch.rand(capacity, 4), weight])
    assert [shapes[0] for shapes, _ in log] == [(6, 4), (8, 4)]
    assert all(isinstance(s, int) for shapes, _ in log for shape in shapes for s in shape)


def test_threads_that_call_first_compile_once() -> None:
    gm = traced_growing(lambda series: (series * 2,), torch.rand(6, 4))
    log: list = []
    both = threading.Barrier(2)

    def compile(gm, fakes, static):
        log.append(fakes)
        time.sleep(0.2)  # the other thread has called by now
        return gm.forward

    region, found = Region(split(gm, set())[0], compile), []

    def call() -> None:
        both.wait()
        found.append(region([torch.ones(6, 4)])[0])

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log) == 1
    assert len(found) == 2 and all(torch.equal(f, torch.full((6, 4), 2.0)) for f in found)


@torch._dynamo.config.patch(recompile_limit=3)
def test_many_capacities_are_said() -> None:
    gm = traced_growing(lambda cache: (cache * 2,), torch.rand(6, 4))
    size = gm.graph.find_nodes(op="placeholder")[0].meta["val"].shape[0]
    region = Region(split(gm, set(size.node.expr.free_symbols))[0], compiler([]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for capacity in (4, 5, 4, 5):
            region([torch.rand(capacity, 4)])
    with pytest.warns(KvfixWarning, match="has been compiled 3 times"):
        region([torch.rand(6, 4)])


def test_guards_are_read_from_positions_of_arguments() -> None:
    holds = _predicate("2*L['t1'] <= L['t0'].size()[0] and L['t10'] == 3")
    arguments = [torch.zeros(8), 4, *[None] * 8, 3]
    assert holds(arguments)
    assert not holds([torch.zeros(7), *arguments[1:]])
    assert _predicate(None)([])


@torch._dynamo.config.patch(recompile_limit=3)
def test_what_has_not_run_for_longest_is_dropped():
    """At most as many are kept as Dynamo keeps of a frame; one that runs again is compiled again."""
    gm = traced_growing(lambda series: (series / series.sum(),), torch.rand(6, 4))
    log: list = []
    (part,) = split(gm, {s for n in gm.graph.nodes for s in symbols(n.meta.get("val"))})
    region = Region(part, compiler(log))
    with pytest.warns(KvfixWarning, match="compiled 3 times"):
        for size in (6, 7, 8, 6, 9, 6, 8, 7):
            x = torch.rand(size, 4)
            torch.testing.assert_close(region([x])[0], x / x.sum())
    assert [shapes[0][0] for shapes, _ in log] == [6, 7, 8, 9, 7] and len(region.variants) == 3


def test_a_view_of_another_dtype_is_faked_by_itself():
    row = torch.rand(6, 4)
    for view in (torch.view_as_complex(torch.rand(6, 4, 2)), row.view(torch.int32), row.as_strided((6, 2), (3, 2), 1)):
        own = unviewed(view)
        assert own._base is None and own.data_ptr() == view.data_ptr() and own.stride() == view.stride()
        assert torch.equal(own, view) and own.dtype is view.dtype
    conj = torch.rand(3, dtype=torch.complex64).conj()
    assert unviewed(conj) is conj


def test_where_an_input_starts_is_nothing_to_compile_for():
    gm = traced_growing(lambda series: (series / series.sum(),), torch.rand(6, 4))
    log: list = []
    region = Region(split(gm, set())[0], compiler(log))
    memory = torch.rand(60, 4)
    for start in range(8):
        x = memory[start : start + 7 + start]
        torch.testing.assert_close(region([x])[0], x / x.sum())
    assert len(log) == 1


def test_what_compiling_assumes_is_checked() -> None:
    """Sizes that the compiler compares while it compiles hold for this variant alone."""
    (part,) = split(traced_growing(lambda series: (series / series.sum(),), torch.rand(6, 4)), set())
    compiled: list[bool] = []

    def compile(gm, fakes, static):
        compiled.append(bool(fakes[0].shape[0] > 6))  # guards
        return gm.forward

    region = Region(part, compile)
    for size in (5, 6, 7, 8, 4, 9):
        series = torch.rand(size, 4)
        torch.testing.assert_close(region([series])[0], series / series.sum())
    assert compiled == [False, True]


TRUTHS = {
    "larger": lambda x, p: x * (p > 2),
    "no number": lambda x, p: x + (p != 3),
    "of a remainder": lambda x, p: (p % 2 == 0) * x,
    "two": lambda x, p: x * (p >= 1) - x * (p < 4) * 0.5,
    "beside a product": lambda x, p: x @ x.mT * (p > 4),
}


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", TRUTHS)
@torch.no_grad()
def test_a_number_of_a_module_has_no_address(name: str, compiler: str) -> None:
    """The step that fills the cache knows its value, and the number is an input of the core all the same."""

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos = 0
            self.register_buffer("k", torch.zeros(2, 6, 2, dtype=torch.float16))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            end = self.pos + x.shape[1]
            self.k[:, self.pos : end] = x
            out = self.k[:, :end].sum(1), TRUTHS[name](x, self.pos)
            self.pos = end
            return out

    ours, theirs = Counting(), Counting()
    compiled = torch.compile(ours, backend="kvfix", options={"compiler": compiler})
    for n in (4, 1, 1):
        x = torch.rand(2, n, 2).half()
        for a, b in zip(compiled(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b)
    assert not any(report.unfit for report in fxpass.reports())


class Projected(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("k", torch.zeros(2, 8, 4))

    def forward(self, x: torch.Tensor, pos: int) -> torch.Tensor:
        self.k[:, pos : pos + 1] = self.project(x)
        return self.k[:, : pos + 1].sum(1)


def swapped_by_hand(model: Projected) -> None:
    for old in (model.project.weight, model.k):
        torch.utils.swap_tensors(old, type(old)(old * 2))


def swapped_by_a_conversion(model: Projected) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


@torch.no_grad()
@pytest.mark.parametrize("swap", [swapped_by_hand, swapped_by_a_conversion])
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_tensors_that_a_part_was_compiled_for_can_be_swapped(compiler: str, swap: Callable[[Projected], None]) -> None:
    model, eager = Projected(), Projected()
    eager.load_state_dict(model.state_dict())
    compiled = torch.compile(model, backend="kvfix", options={"compiler": compiler})
    for pos in range(5):
        if pos in (1, 4):
            swap(model)
            swap(eager)
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(x, pos), eager(x, pos))
        torch.testing.assert_close(model.k, eager.k)
    assert fxpass.reports()[-1].rewritten
