"""What a function goes on with behind a graph break is known by the function that it is of, where torch tells which."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fxpass
from fxpass.torch_internals.dynamo.graph_breaks import resumed_functions
from fxpass.torch_internals.lookup import Missing, stand_in


def step(k: Tensor, p: int) -> Tensor:
    total = k.sum(1)
    torch._dynamo.graph_break()
    return total + k[:, :p].sum(1)


def rewritten() -> list[int]:
    """What the reports count as rewritten, after three calls that are eager's."""
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    k = torch.rand(2, 16)
    for p in (8, 9, 10):
        torch.testing.assert_close(compiled(k, p), step(k, p))
    return [report.rewritten for report in fxpass.reports()]


@torch.no_grad()
def test_the_rest_of_a_function_is_called_so() -> None:
    names: list[str] = []
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    name = resumed_functions.function_name
    hook = torch._dynamo.convert_frame.register_bytecode_hook(lambda code, _: names.append(name(code)))
    try:
        compiled(torch.rand(2, 16), 8)
    finally:
        hook.remove()
    assert names == ["step", "the rest of step"]


@torch.no_grad()
def test_where_torch_does_not_tell_nothing_else_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = rewritten()
    torch._dynamo.reset()
    fxpass.reset()
    name = "torch._dynamo.resume_execution.ContinueExecutionCache"
    monkeypatch.setattr(resumed_functions, "ContinueExecutionCache", stand_in(name, Missing(f"this torch has no {name}")))
    assert rewritten() == wanted and max(wanted) == 1
    assert resumed_functions.function_name(step.__code__) == "step"
