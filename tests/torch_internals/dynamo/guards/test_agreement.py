"""Elements of an index tensor that have never differed share one position, under a guard that they agree."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import scaled_dot_product_attention

import fxpass
from fxpass import backend
from fxpass.torch_internals.dynamo.frames import history
from fxpass.torch_internals.dynamo.sizes import dynamism

ROWS, HEADS, DIM, LAYERS = 2, 2, 4, 3


class Caches:
    """Keys of ``LAYERS`` layers in buffers of their own; one index tensor holds all lengths."""

    def __init__(self, capacity: int = 16) -> None:
        self.keys = [torch.full((ROWS, HEADS, capacity, DIM), float("nan")) for _ in range(LAYERS)]
        self.index = torch.zeros(LAYERS, dtype=torch.int64)

    def append(self, layer: int, k: Tensor) -> Tensor:
        start = int(self.index[layer].item())
        end = start + k.shape[2]
        self.keys[layer][:, :, start:end] = k
        self.index[layer] = end
        return self.keys[layer][:, :, :end]


class Model(nn.Module):
    """Each layer appends and attends; the last one only when ``deep``, so lengths may part."""

    def forward(self, x: Tensor, caches: Caches, deep: bool = True) -> Tensor:
        for layer in range(LAYERS if deep else LAYERS - 1):
            k = caches.append(layer, torch.sin(x * (layer + 1)))
            x = x + scaled_dot_product_attention(x, k, k)
        return x


def run(model, plan: list[bool], capacity: int = 16) -> tuple[list[Tensor], Caches]:
    """A prefill of three rows, then one row a step; ``plan`` tells which steps are deep."""
    generator = torch.Generator().manual_seed(0)
    caches, outputs = Caches(capacity), []
    with torch.no_grad():
        for i, deep in enumerate(plan):
            x = torch.randn(ROWS, HEADS, 3 if i == 0 else 1, DIM, generator=generator)
            outputs.append(model(x, caches, deep))
    return outputs, caches


def check(model, plan: list[bool], capacity: int = 16) -> None:
    (expected, theirs), (found, ours) = run(Model(), plan, capacity), run(model, plan, capacity)
    for step, (a, b) in enumerate(zip(expected, found, strict=True)):
        torch.testing.assert_close(b, a, msg=lambda text, step=step: f"step {step}: {text}")
    assert torch.equal(ours.index, theirs.index)
    for a, b in zip(theirs.keys, ours.keys, strict=True):
        torch.testing.assert_close(b, a, equal_nan=True)


@pytest.fixture
def compiled():
    return torch.compile(Model(), backend="kvfix", options={"compiler": "eager", "strict": True})


def positions() -> list[set[str]]:
    """The positions of each rewritten graph."""
    return [{s.position.split()[0] for s in r.sites if s.kind == "read"} for r in fxpass.reports() if r.rewritten]


def test_layers_in_step_share_one_position(compiled) -> None:
    check(compiled, [True] * 6)
    assert counters["stats"]["unique_graphs"] == 2
    assert [len(p) for p in positions()] == [1]


def test_lengths_that_part_are_told_apart(compiled) -> None:
    """In step, then the last layer falls behind by two, then all three run again: right at each step, and no graph more
    than one for each way that the lengths stand to each other."""
    check(compiled, [True] * 4 + [False] * 2 + [True] * 4)
    assert max(len(p) for p in positions()) == 2
    graphs = counters["stats"]["unique_graphs"]
    check(compiled, [True] * 4 + [False] * 2 + [True] * 4)
    assert counters["stats"]["unique_graphs"] == graphs


def test_what_is_compiled_after_they_parted_takes_them_as_they_come(compiled) -> None:
    """Equal again, of another capacity: the general graph or the shared one, and no further one."""
    check(compiled, [True, True, False, False, True, True])
    assert len(positions()[-1]) == 2
    graphs = counters["stats"]["unique_graphs"]
    check(compiled, [True] * 5, capacity=24)
    assert counters["stats"]["unique_graphs"] <= graphs + 1  # the prefill of another capacity


def test_elements_are_grouped_by_all_that_they_have_held() -> None:
    code = test_elements_are_grouped_by_all_that_they_have_held.__code__
    assert history.see_elements(code, "idx", (0, 0, 0)).groups == (0, 0, 0)
    assert history.see_elements(code, "idx", (1, 1, 2)).groups == (0, 0, 1)
    assert history.see_elements(code, "idx", (5, 5, 5)).groups == (0, 0, 1)
    assert history.see_elements(code, "idx", (5, 6, 5)).groups == (0, 1, 2)
    assert history.see_elements(code, "idx", (5, 6)).groups == (0, 1)


@pytest.fixture
def restarts(monkeypatch) -> list[int]:
    """For each time that a frame is traced again, how many nodes had been traced."""
    found: list[int] = []
    stock = dynamism.TensorifyScalarRestartAnalysis

    def counted(*args, **kwargs):
        found.append(len(history.current_frame().output.graph.nodes))
        return stock(*args, **kwargs)

    monkeypatch.setattr(dynamism, "TensorifyScalarRestartAnalysis", counted)
    return found


def test_what_a_prefill_writes_is_dynamic_in_the_step(compiled, restarts) -> None:
    check(compiled, [True] * 4)
    check(compiled, [True] * 4, capacity=24)
    assert restarts == []
    assert counters["stats"]["unique_graphs"] <= 3


def test_one_restart_for_the_caches_of_all_layers(compiled, restarts, monkeypatch) -> None:
    """Where the prefill told nothing, the first slice of a cache at a position makes the capacities of all caches of its size
    dynamic."""
    monkeypatch.setattr(backend, "expect", lambda *_: None)
    check(compiled, [True] * 4)
    assert len(restarts) == 1
    assert restarts[0] < 20  # nodes: from the first layer, not from the end
    check(compiled, [True] * 4, capacity=24)
    assert len(restarts) == 1
    assert counters["stats"]["unique_graphs"] <= 3
