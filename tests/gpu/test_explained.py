"""What `kvfix explain` says of a step on a GPU: what it launches, once it is recorded."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from lifetime import runs
from typer.testing import CliRunner

from fxpass.tools.command_line import app
from fxpass.tools.counting import launched

pytestmark = pytest.mark.gpu
GRAPHS, KERNELS = "launches of CUDA graphs in a call", "launches of kernels in a call"


def decode_step() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A factory for the command line."""
    return runs.Decoder("cuda"), (torch.randn(2, 1, runs.WIDTH, device="cuda"), runs.Cache(16, "cuda")), {}


def explain(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["explain", "test_explained:decode_step", "--compiler", "inductor", *arguments])


def test_a_step_is_one_launch() -> None:
    """Of a CUDA graph; of single kernels it has fewer than eager, and than stock."""
    result = explain("--calls", "6", "--json", "--compare")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["kvfix"]["graphs"] == 2 and found["kvfix"]["recordings"] >= 1 and found["kvfix"]["skipped recordings"] == 0
    assert found["kvfix"][GRAPHS] == 1
    model, (x, cache), _ = decode_step()
    with torch.no_grad():
        model(x, cache)
        with launched() as eager:
            model(x, cache)
    assert found["kvfix"][KERNELS] < min(eager.kernels, found["stock"][KERNELS])


def test_a_call_that_records_is_not_counted() -> None:
    """The third call is the second of the decode graph, which is the one that is recorded."""
    result = explain("--calls", "3")
    assert result.exit_code == 0, result.output
    assert "call 3 still compiled or recorded" in result.stderr and "launches of" not in result.stdout
