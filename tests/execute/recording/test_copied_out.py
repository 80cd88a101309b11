"""Results that a later call would overwrite are copied out, for graphs that Inductor records by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from fxpass.execute.calls import untouched as module
from fxpass.execute.calls.untouched import untouched
from fxpass.execute.recording.copied_out import CopiedOut
from fxpass.execute.recording.results import copied_groups
from fxpass.options import Options


def overwritten(*args: Tensor) -> list[Any]:
    """As a recording gives them: a result that the next call overwrites, a view of it, an argument, and no tensor."""
    memory.copy_(args[0] * 2)
    return [memory, memory[1:], args[0], args[0][:2], 3]


memory = torch.zeros(4)


def test_results_of_earlier_calls_stay() -> None:
    run = CopiedOut(overwritten)
    for start in (1.0, 5.0):
        x = torch.arange(start, start + 4)
        first = run(x)
        run(torch.zeros(4))
        torch.testing.assert_close(first[0], 2 * x)
        torch.testing.assert_close(first[1], 2 * x[1:])
        assert first[2] is x and first[3].data_ptr() == x.data_ptr() and first[4] == 3
        first[0][1] = 7
        assert first[1][0] == 7


def test_copies_have_the_strides_of_what_they_are_copies_of() -> None:
    alone, first, second = torch.rand(4, 6)[:, ::2], *torch.rand(2, 3, 4).transpose(1, 2).unbind(0)
    for of, copy in zip((alone, first, second), copied_groups([[alone], [first, second]]), strict=True):
        assert copy.stride() == of.stride() and torch.equal(copy, of) and copy.data_ptr() != of.data_ptr()


@pytest.mark.parametrize("trained", [False, True])
def test_what_is_recorded_is_copied_out(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where autograd follows the graph, it is compiled without CUDA graphs."""
    asked: list[Any] = []

    def compile(name: str, patches: dict[str, Any]) -> Any:
        asked.append(patches["triton.cudagraphs"])
        return lambda gm, inputs: overwritten

    monkeypatch.setattr(module, "as_dynamo_gave_it", compile)
    monkeypatch.setattr(module, "asks_for_graphs", lambda patches, inputs: bool(patches["triton.cudagraphs"]))
    settings = Options(inductor={"triton.cudagraphs": True})
    x = torch.ones(4, requires_grad=trained)
    made = untouched(fx.symbolic_trace(nn.Identity()), [x], None, settings, lambda: overwritten, lambda error: None)
    assert asked == [not trained]
    with torch.no_grad():
        assert (made(x)[0].data_ptr() == memory.data_ptr()) is trained
