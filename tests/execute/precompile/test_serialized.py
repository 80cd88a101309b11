"""What is kept of a graph makes the same function: shared memory, symbols, constants, index tensors carried."""

from __future__ import annotations

import pickle
from typing import Any
from unittest import mock

import pytest
import torch
from graphs import same, traced
from torch import fx

from fxpass import backend
from fxpass.execute.calls.assemble import Plan, assemble
from fxpass.execute.partition.split import split
from fxpass.execute.precompile.described_values import NotSerializable
from fxpass.execute.precompile.serialized import serialize
from fxpass.execute.recording.carry import carry_indices
from fxpass.options import Options

EAGER = Options(compiler="eager")


def again(plan: Plan):
    return pickle.loads(pickle.dumps(serialize(plan, EAGER))).compile()


def rewritten(gm: fx.GraphModule, carried=None) -> Plan:
    return Plan(gm, split(gm, set()), set(), carried)


def model(x, weight, cache, index):
    h = torch.nn.functional.linear(x, weight) * torch.arange(4.0)
    cache.index_copy_(0, index, h)
    index.add_(1)
    return h + cache.sum(0), cache[0], 3


def arguments():
    return [torch.ones(2, 4), torch.eye(4) * 2, torch.zeros(6, 4), torch.tensor([1, 2])]


def test_outputs_and_buffers_are_those_of_the_graph() -> None:
    gm = traced(model, arguments())
    assert same(again(rewritten(gm)), assemble(rewritten(gm), EAGER), arguments())
    assert same(again(rewritten(gm)), gm, arguments())
    assert same(again(Plan(gm)), gm, arguments())


def test_index_tensors_stay_carried() -> None:
    gm = traced(model, arguments())
    carried = carry_indices(gm)
    assert carried
    assert same(again(rewritten(gm, carried)), traced(model, arguments()), arguments())


def test_inputs_that_share_memory_still_do() -> None:
    def shared(whole, part):
        part.add_(1)
        return (whole * 2,)

    def views():
        whole = torch.arange(6.0)
        return [whole, whole[2:4]]

    gm = traced(shared, views())
    kept = serialize(Plan(gm), EAGER)
    assert kept.values[0].memory == kept.values[1].memory and kept.values[1].offset == 2
    loaded = again(Plan(gm))
    given = views()
    (result,) = loaded(*given)
    torch.testing.assert_close(result, torch.tensor([0.0, 2, 6, 8, 8, 10]))
    torch.testing.assert_close(given[0], torch.tensor([0.0, 1, 3, 4, 4, 5]))


def test_a_symbolic_size_stays_symbolic() -> None:
    gm = torch.export.export(
        _Growing(), (torch.ones(3, 4), torch.eye(4)), dynamic_shapes=({0: torch.export.Dim("n", min=2)}, {})
    ).graph_module
    loaded = again(Plan(gm))
    for n in (2, 5, 7):
        x = torch.randn(n, 4)
        torch.testing.assert_close(loaded(x, torch.eye(4))[0], x * 2 + n)


class _Growing(torch.nn.Module):
    def forward(self, x, weight):
        return torch.nn.functional.linear(x, weight) * 2 + x.shape[0]


def test_what_cannot_be_kept_says_why() -> None:
    def local(x):
        return x

    gm = traced(lambda x: (x + 1,), [torch.ones(2)])
    gm.graph.output_node().prepend(gm.graph.call_function(local, tuple(gm.graph.find_nodes(op="placeholder"))))
    with pytest.raises(NotSerializable, match="local"):
        serialize(Plan(gm), EAGER)


@torch.no_grad()
def test_buffers_of_what_grows_are_made_anew() -> None:
    """What is kept of a step that joins, called in the place of what was compiled, on pasts of two capacities."""
    kept: list[bytes] = []

    def save(plan: Plan, settings: Options, **options: Any) -> Any:
        if plan.parts:
            kept.append(pickle.dumps(serialize(plan, settings)))
        return assemble(plan, settings, **options)

    def step(past: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        joined = torch.cat([past, new], 1)
        return (new @ joined.mT).softmax(-1) @ joined, joined

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    with mock.patch.object(backend, "assemble", save):
        past = torch.randn(2, 3, 4)
        for _ in range(4):
            _, past = compiled(past, torch.randn(2, 1, 4))
    loaded = pickle.loads(kept[-1]).compile()
    for length in (7, 8, 90, 3, 40, 6, 20, 5):
        past, new = torch.randn(2, length, 4), torch.randn(2, 1, 4)
        strides = past.stride(0), past.stride(1)  # of what a call has returned, these are symbols, too
        found, wanted = loaded(length, *strides, past, new.stride(1), new), step(past, new)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)


@torch.no_grad()
def test_windows_are_as_large_as_what_is_read() -> None:
    kept: list[tuple[list[str], bytes]] = []

    def save(plan: Plan, settings: Options, **options: Any) -> Any:
        if plan.growth.around.windows:
            names = [node.name for node in plan.gm.graph.find_nodes(op="placeholder")]
            kept.append((names, pickle.dumps(serialize(plan, settings))))
        return assemble(plan, settings, **options)

    def step(cache: torch.Tensor, new: torch.Tensor, pos: int) -> tuple[torch.Tensor]:
        cache[:, pos : pos + 1] = new
        return ((new @ cache[:, : pos + 1].mT).softmax(-1) @ cache[:, : pos + 1],)

    compiled, cache = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), torch.zeros(2, 90, 4)
    with mock.patch.object(backend, "assemble", save):
        for pos in range(1, 4):
            compiled(cache, torch.randn(2, 1, 4), pos)
    names, data = kept[-1]
    loaded = pickle.loads(data).compile()
    for pos, capacity in ((3, 90), (40, 90), (89, 90), (150, 200), (20, 400)):
        cache, new = torch.full((2, capacity, 4), torch.nan), torch.randn(2, 1, 4)
        cache[:, :pos] = 1
        values = {"l_cache_": cache, "l_new_": new, "l_pos_": pos}
        given = [values.get(n, capacity) for n in names[:4]]
        torch.testing.assert_close(loaded(*given), step(cache, new, pos))
