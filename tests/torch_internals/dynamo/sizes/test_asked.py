"""What a compiled graph asks of its inputs before it runs: sizes and strides that are symbols."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fxpass.torch_internals.dynamo.sizes import asked


class Counted(TorchFunctionMode):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.asked.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Sub(Tensor):
    pass


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    called: list[str] = []

    def call_size(x: Tensor, i: int) -> int:
        called.append(type(x).__name__)
        return x.size(i)

    monkeypatch.setattr(torch._dynamo.utils, "call_size", call_size)
    return called


def test_only_plain_tensors_are_asked_directly(stock: list[str]) -> None:
    ask = asked._asked(Tensor.size, torch._dynamo.utils.call_size)
    assert ask(torch.ones(2, 3), 1) == ask(torch.nn.Parameter(torch.ones(2, 3)), 1) == 3
    assert stock == []
    assert ask(torch.ones(2, 3).as_subclass(Sub), 1) == 3
    with Counted():
        assert ask(torch.ones(2, 3), 1) == 3
    assert stock == ["Sub", "Tensor"]


@torch.no_grad()
def test_a_step_asks_so() -> None:
    compiled = torch.compile(lambda past, x: torch.cat([past, x], 1), backend="kvfix", options={"compiler": "eager"})
    past = torch.ones(1, 4, 2)
    for _ in range(4):
        past = compiled(past, torch.ones(1, 1, 2))
    assert past.shape == (1, 8, 2)
    for function in (torch._dynamo.utils.call_size, torch._dynamo.utils.call_stride):
        assert function.__globals__ is vars(asked)
