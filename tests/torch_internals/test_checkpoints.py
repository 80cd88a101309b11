"""A `ShapeEnv` that is put back knows what it knew before, and answers as if nothing had been asked in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, statically_known_true

from fxpass.torch_internals.checkpoints import checkpoint


def number(env: ShapeEnv, name: str, value: int) -> torch.SymInt:
    symbol = env.create_symbol(value, ConstantSource(name), dynamic_dim=DimDynamic.DYNAMIC)
    return env.create_symintnode(symbol, hint=value)


ASKED: dict[str, Callable[[torch.SymInt, torch.SymInt], Any]] = {
    "equal": lambda a, b: a == b,
    "fixed": lambda a, b: a == 6,
    "larger": lambda a, b: a > 3,
    "divisible": lambda a, b: a % 2 == 0,
    "other": lambda a, b: a + b < 100,
}


@pytest.mark.parametrize("asked", list(ASKED))
def test_what_was_guarded_is_unknown_again(asked: str) -> None:
    env = ShapeEnv()
    a, b = number(env, "a", 6), number(env, "b", 6)
    assert a + 1 <= 64
    before = [str(guard.expr) for guard in env.guards], str(a), str(b)
    condition = ASKED[asked](a, b)
    assert not statically_known_true(condition)
    undo = checkpoint(env)
    for _ in range(2):
        assert condition  # guards
        assert statically_known_true(ASKED[asked](a, b))
        number(env, "c", 9)
        undo()
        assert ([str(guard.expr) for guard in env.guards], str(a), str(b)) == before
        assert not statically_known_true(ASKED[asked](a, b))
        assert statically_known_true(a < 64)


def test_symbols_made_since_are_gone_and_containers_stay() -> None:
    env = ShapeEnv()
    number(env, "a", 6)
    held, count = env.guards, len(env.var_to_range)
    undo = checkpoint(env)
    assert number(env, "b", 7) > 3
    undo()
    assert env.guards is held and not held and len(env.var_to_range) == count
    assert str(number(env, "b", 7)) != str(number(env, "c", 8))
