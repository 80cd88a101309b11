"""What `torch.compile` and resets of torch do when the hooks are in; what is lost without them: test_contracts.py."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters


@torch.no_grad()
def test_a_reset_of_torch_forgets_what_was_first_seen() -> None:
    """Two numbers that have differed are told apart from then on; after a reset they are taken for one again."""
    compiled = torch.compile(lambda x, i: x * i[0].item() * i[1].item(), backend="kvfix", options={"compiler": "eager"})
    for _ in range(2):
        torch.compiler.reset()
        counters.clear()
        for pair in [(2, 2), (3, 3), (4, 5)]:
            assert compiled(torch.ones(1), torch.tensor(pair)) == pair[0] * pair[1]
        assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.parametrize("gpu, compiler, starts", [(True, "inductor", 1), (True, "eager", 0), (False, "inductor", 0)])
def test_worker_processes_start_with_torch_compile(
    gpu: bool, compiler: str, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fxpass.torch_internals.inductor import names

    started: list[None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(names, "maybe_warm_pool", lambda: started.append(None))
    torch.compile(lambda x: x, backend="kvfix", options={"compiler": compiler})
    assert len(started) == starts
