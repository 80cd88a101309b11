"""A plan is assembled as often as one likes: it stays as it is."""

from __future__ import annotations

import pytest
import torch
from graphs import parts_of, traced
from torch import Tensor

from fxpass.execute.calls.assemble import Plan, assemble
from fxpass.execute.precompile.serialized import serialize
from fxpass.options import Options

EAGER = Options(compiler="eager")


def packed(x: Tensor, w: Tensor, cache: Tensor) -> tuple[Tensor, ...]:
    """A prologue that hands over, and a core with two results of one dtype, which are packed."""
    y = (x * 2) @ w
    return y, y + 1


def written(x: Tensor, w: Tensor, cache: Tensor) -> tuple[Tensor, ...]:
    y = (x * 2) @ w
    cache.add_(y)
    return y * 3, cache[0]


def shown(x: Tensor, w: Tensor, cache: Tensor) -> tuple[Tensor, ...]:
    scaled = x * 2
    return scaled @ w, scaled


def inputs() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.rand(4, 4), torch.rand(4, 4), torch.zeros(4, 4)]


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("step", [packed, written, shown])
def test_a_plan_is_assembled_twice(step, recorded: bool) -> None:
    gm = traced(step, inputs())
    parts = parts_of(gm)
    plan = Plan(gm, parts, carried=[] if recorded else None)
    before = [(part.gm.code, list(part.inputs), list(part.outputs), set(part.addresses)) for part in parts]
    saved = serialize(plan, EAGER)
    for _ in range(2):
        mine, eager = inputs(), inputs()
        results = assemble(plan, EAGER)(*mine)
        for a, b in zip((*results, *mine), (*step(*eager), *eager), strict=True):
            assert torch.equal(a, b)
        assert before == [(part.gm.code, list(part.inputs), list(part.outputs), set(part.addresses)) for part in parts]
        assert serialize(plan, EAGER).values == saved.values
