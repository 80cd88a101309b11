"""Many sites of one graph, each refused for a reason of its own: the others stay as they are, and the numbers are eager's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fxpass

F = torch.nn.functional

REFUSED: dict[str, tuple[Callable[[Tensor, int, Tensor], Tensor], str]] = {
    "channels": (lambda r, e, x: F.scaled_dot_product_attention(r.mT, r.mT, r.mT), "attention with heads or channels"),
    "weights": (lambda r, e, x: F.linear(r.mT, r[0, :, 0]), "aten.linear with a vector for the weights"),
    "embeddings": (lambda r, e, x: F.embedding(torch.tensor([0, 1]), r.mT[0]), "embeddings whose width depends"),
    "correction": (lambda r, e, x: r.var(1, correction=e - 3), "a correction that is a position"),
    "complex": (lambda r, e, x: torch.view_as_complex(r.unflatten(2, (2, 2))).var(1).abs(), "var.dim of complex numbers"),
    "repeated": (lambda r, e, x: r.repeat(1, e, 1), "aten.repeat by a position"),
    "interleaved": (lambda r, e, x: r.repeat_interleave(e, 1), "aten.repeat_interleave.self_int by a position"),
    "step": (lambda r, e, x: r[:, ::e], "the step of a slice"),
    "topk": (lambda r, e, x: r.topk(e, 1).values, "aten.topk by a position, which is how many"),
    "sorter": (lambda r, e, x: torch.searchsorted(r[0, :, 0] + 0, x[0, 0], sorter=r[0, :, 0].argsort() + 0), "a sorter"),
    "two axes": (lambda r, e, x: (r @ r.mT).flatten(1), "one of two position-dependent axes"),
    "one side": (lambda r, e, x: torch.ones(e * e).view(e, e) @ r, "contracts a position-dependent axis with one that is not"),
    "mask": (lambda r, e, x: r.index_put((r[:, :, 0] > 0.5,), x[0, 0]), "a lookup with a boolean mask"),
}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("names", [list(REFUSED)[::2], list(REFUSED)[1::2]], ids=["one half", "the other"])
def test_each_for_its_own_reason(names: list[str]) -> None:
    cases = [REFUSED[name] for name in names]

    def step(caches: list[Tensor], x: Tensor, p: int) -> tuple[Tensor, Tensor]:
        for cache in caches:
            cache[:, p : p + 1] = x
        *others, rows = [cache[:, : p + 1] for cache in caches]
        sums = [finish(own, p + 1, x).sum() for own, (finish, _) in zip(others, cases, strict=True)]
        return torch.stack(sums), rows.sum(1)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    ours = list(torch.rand(len(cases) + 1, 2, 8, 4))
    theirs = [cache.clone() for cache in ours]
    for p in (4, 5):
        x = torch.rand(2, 1, 4)
        torch.testing.assert_close(compiled(ours, x, p), step(theirs, x, p))
        assert all(map(torch.equal, ours, theirs))
    reads = {s.buffer: s for s in fxpass.reports()[-1].sites if s.kind == "read"}
    for i, (name, (_, reason)) in enumerate(zip(names, cases, strict=True)):
        assert reason in reads[f"caches[{i}]"].reason, name
    assert reads[f"caches[{len(cases)}]"].decision == "rewritten"
