"""A seeded part of PyTorch's own samples; all of them are run by ``python -m tests.sweeps samples --all``."""

from __future__ import annotations

import random

import pytest
import torch

from . import samples

OPERATORS = {samples.name_of(op): op for op in samples.operators()}
CHOSEN = random.Random(12).sample(sorted(OPERATORS), 36)
RULED = ["sum", "prod", "flip", "sort", "topk", "roll", "cumprod", "cummax", "nn.functional.pad.constant", "matmul", "repeat",
         "nn.functional.pad.reflect", "select_scatter", "unfold", "index_select", "gather"]  # fmt: skip


@pytest.mark.parametrize("name", dict.fromkeys([*RULED, *CHOSEN]))
def test_an_operator_on_a_slice_is_equal_or_refused(name: str) -> None:
    every = [(sample, cut) for sample in samples.samples(OPERATORS[name])[:8] for cut in samples.cuts(sample)]
    for sample, cut in random.Random(name).sample(every, min(len(every), 2)):
        outcome = samples.run(sample, cut)
        assert outcome.kind not in ("wrong", "crash"), f"{samples.describe(sample, cut)}: {outcome.reasons}"


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("name", ["flip", "roll", "cumprod"])
def test_so_it_is_through_torch_compile(name: str) -> None:
    """The harness hands graphs to the pass alone; here Dynamo does."""
    sample = samples.samples(OPERATORS[name])[0]
    (big,) = (samples.buffer_of(sample.leaves[i], [0]) for i in sample.places[:1])

    def program(buffer: torch.Tensor, end: int) -> torch.Tensor:
        out = torch.zeros(16, *buffer.shape[1:], dtype=buffer.dtype)
        first = torch.utils._pytree.tree_leaves(sample.call([buffer[:end]]))[0]
        out[: first.shape[0]] = first
        return out

    compiled = torch.compile(program, backend="kvfix", options={"compiler": "eager"})
    for end in range(big.shape[0]):
        torch.testing.assert_close(compiled(big, end), program(big, end), equal_nan=True)
