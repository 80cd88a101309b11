"""What stays from step to step: caches written by index, tables and masks handed in, chunks. One core, nothing refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import fxpass

sdpa = torch.nn.functional.scaled_dot_product_attention
N = 16
Step = Callable[..., Tensor]


def one_core(sites: int, graphs: int = 2) -> None:
    report = fxpass.reports()[-1]
    assert report.rewritten >= sites and not any(r.refused or r.unfit for r in fxpass.reports())
    assert [name for name, static, _ in report.parts if static] == ["core"]
    assert all(static or name == "prologue" for name, static, _ in report.parts)
    assert counters["stats"]["unique_graphs"] <= graphs


def kvfix(step: Step, compiler: str) -> Step:
    return torch.compile(step, backend="kvfix", options={"compiler": compiler})


WRITES: dict[str, Step] = {
    "index_copy_": lambda k, x, at: k.index_copy_(1, at, x),
    "scatter_": lambda k, x, at: k.scatter_(1, at[None, :, None].expand_as(x), x),
    "index_put_": lambda k, x, at: k.index_put_((torch.arange(2)[:, None], at[None]), x),
    "through a view": lambda k, x, at: k.transpose(0, 1).index_copy_(0, at, x.transpose(0, 1)).transpose(0, 1),
}
READS: dict[str, Step] = {
    "attention": lambda k, x, end: sdpa(x, k[:, :end], k[:, :end]),
    "product": lambda k, x, end: (x @ k[:, :end].mT).softmax(-1) @ k.narrow(1, 0, end),
    "sum": lambda k, x, end: k[:, :end].sum(1),
    "largest": lambda k, x, end: k.mT[..., :end].amax(2),
}


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("read", list(READS))
@pytest.mark.parametrize("write", list(WRITES))
def test_a_cache_written_by_index_is_read_in_full(write: str, read: str, compiler: str) -> None:
    def step(x: Tensor, k: Tensor, at: Tensor, end: int) -> Tensor:
        WRITES[write](k, x, at)
        return READS[read](k, x, end)

    compiled, (mine, eager) = kvfix(step, compiler), torch.zeros(2, 2, N, 4)
    for end in range(5, 9):
        x, at = torch.rand(2, 1, 4), torch.tensor([end - 1])
        torch.testing.assert_close(compiled(x, mine, at, end), step(x, eager, at, end))
        assert torch.equal(mine, eager)
    one_core(1)


@torch.no_grad()
@pytest.mark.parametrize("origin", ["int", "item", "bound"])
def test_a_table_that_is_only_read_is_read_in_full(origin: str) -> None:
    def step(t: Tensor, i: Any) -> Tensor:
        end = {"int": lambda: i, "item": lambda: int(i[0].item()), "bound": lambda: i[0]}[origin]()
        return t[:, :end] @ t[:, :end].mT

    compiled, t = kvfix(step, "eager"), torch.rand(2, N)
    for p in range(4, 8):
        i = p if origin == "int" else torch.tensor([p])
        torch.testing.assert_close(compiled(t, i), step(t, i))
    one_core(1)


class Masked(nn.Module):
    """Keys in a buffer under a mask that the caller gives; ``cut`` takes of it what goes with rows s to e."""

    def __init__(self, cut: Callable[[Tensor, int, int], Tensor]) -> None:
        super().__init__()
        self.cut = cut
        self.register_buffer("k", torch.zeros(2, N, 4))

    def forward(self, x: Tensor, s: int, mask: Tensor) -> Tensor:
        e = s + x.shape[1]
        self.k[:, s:e] = x
        return sdpa(x, self.k[:, :e], self.k[:, :e], attn_mask=self.cut(mask, s, e))


CUTS: dict[str, tuple[Callable[[Tensor, int, int], Tensor], int]] = {
    "columns": (lambda m, s, e: m[:1, None, :e], 3),
    "rows and columns": (lambda m, s, e: m[s:e, :e], 5),
    "rows first": (lambda m, s, e: m.narrow(0, s, e - s)[:, :e], 5),
    "one row": (lambda m, s, e: m[s, :e], 5),
    "turned": (lambda m, s, e: m.mT[:e, s:e].mT, 5),
}


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("width", [N, N + 8])
@pytest.mark.parametrize("name", list(CUTS))
def test_a_mask_that_is_handed_in(name: str, width: int, bias: bool) -> None:
    cut, sites = CUTS[name]
    mask = torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(width, width).masked_fill(~mask, -1e4) if bias else mask
    model, eager = Masked(cut), Masked(cut)
    compiled, s = kvfix(model, "eager"), 0
    for n in (1, 1, 1, 1, 1):
        x = torch.rand(2, n, 4)
        torch.testing.assert_close(compiled(x, s, mask), eager(x, s, mask))
        assert torch.equal(model.k, eager.k)
        s += n
    one_core(3)


CHUNKS: dict[str, Step] = {
    "product": lambda x, k, s: (x @ k[:, : s + x.shape[1]].mT).softmax(-1) @ k[:, : s + x.shape[1]],
    "rotated": lambda x, k, s: x * torch.arange(s, s + x.shape[1])[:, None] + k[:, : s + x.shape[1]].sum(1, True),
    "filled": lambda x, k, s: torch.full((2, x.shape[1]), s) + k[:, : s + x.shape[1]].sum((1, 2))[:, None],
    "rows again": lambda x, k, s: x + k[:, s : s + x.shape[1]] * 2 + k[:, : s + x.shape[1]].sum(1, True),
}


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", list(CHUNKS))
def test_chunks_of_any_length_are_rolled_back(name: str, compiler: str) -> None:
    def step(x: Tensor, k: Tensor, s: int) -> Tensor:
        k[:, s : s + x.shape[1]] = x
        return CHUNKS[name](x, k, s)

    compiled, (mine, eager), s = kvfix(step, compiler), torch.zeros(2, 2, 64, 4), 0
    for n, back in ((8, 0), (3, 1), (3, 2), (4, 0), (3, 1), (1, 0), (3, 0)):
        x = torch.rand(2, n, 4)
        torch.testing.assert_close(compiled(x, mine, s), step(x, eager, s))
        assert torch.equal(mine, eager)
        s += n - back
    one_core(2, graphs=4)


class Counting(nn.Module):
    """Nothing to rewrite, and an int that counts along."""

    def __init__(self, count: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.count, self.seen, self.share = count, 0, 0.0
        self.register_buffer("k", torch.zeros(2, N, 4))

    def forward(self, x: Tensor, at: Tensor) -> Any:
        self.k.index_copy_(1, at, x)
        out = sdpa(x, self.k, self.k, attn_mask=torch.arange(N)[None] <= at[:, None])
        return out, self.count(self, x)


def attribute(m: Any, x: Tensor) -> None:
    m.seen += x.shape[1]


def returned(m: Any, x: Tensor) -> int:
    m.seen += 1
    return m.seen * 2 + 1


def fraction(m: Any, x: Tensor) -> float:
    m.seen += 1
    m.share = m.seen / 16
    return m.share


@torch.no_grad()
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("count", [attribute, returned, fraction], ids=lambda f: f.__name__)
def test_a_counter_stays_out_of_the_core(count: Callable[..., Any], compiler: str) -> None:
    model, eager = Counting(count), Counting(count)
    compiled = kvfix(model, compiler)
    for p in range(5):
        x, at = torch.rand(2, 1, 4), torch.tensor([p])
        torch.testing.assert_close(compiled(x, at), eager(x, at))
        assert (model.seen, model.share) == (eager.seen, eager.share) and torch.equal(model.k, eager.k)
    one_core(0, graphs=3)


@torch.no_grad()
def test_where_an_input_starts_is_no_reason_to_leave_the_core() -> None:
    """Rows cut from a longer series, and nothing to rewrite: a storage offset and a stride that differ on each call."""
    model, eager, series = Counting(attribute), Counting(attribute), torch.rand(2, 40, 4)
    compiled = kvfix(model, "eager")
    for p in range(5):
        x, at = series[:, p : p + 1], torch.tensor([p])
        torch.testing.assert_close(compiled(x, at)[0], eager(x, at)[0])
        assert torch.equal(model.k, eager.k)
    one_core(0, graphs=3)
