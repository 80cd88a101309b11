"""What a step reads of a cache on a CPU follows what is filled, and its numbers are those of the whole cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compilations import parts_compiled
from small_models import kvfix
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.utils._python_dispatch import TorchDispatchMode

import fxpass
from fxpass.execute.buffers.windows import window_for
from fxpass.execute.compilation.regions import Region

WRITES = {"index_copy", "index_copy_", "index_put", "index_put_", "copy_", "slice_scatter"}
"""Ops that write rows: without in-place writes, as AOTAutograd runs them uncompiled, they copy all of a cache."""


class Work(TorchDispatchMode):
    """The elements that ops take and make, views and ``WRITES`` aside, and what rows are selected from; and the sizes of these
    tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.elements, self.sizes = 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        if not func.is_view and (name := func._schema.name.partition("::")[2]) not in WRITES:
            taken = args[name == "index_select" :]
            found = [t for t in torch.utils._pytree.tree_leaves((taken, kwargs, out)) if isinstance(t, Tensor)]
            self.elements += sum(t.numel() for t in found)
            self.sizes |= {size for t in found for size in t.shape}
        return out


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """What the parts of compiled graphs do from here on."""
    mode, make = Work(), Region._make_variant

    def watched(self: Region, args: Any) -> Any:
        variant = make(self, args)
        run = variant.run

        def seen(*now: Any) -> Any:
            with mode:
                return run(*now)

        return dataclasses.replace(variant, run=seen)

    monkeypatch.setattr(Region, "_make_variant", watched)
    return mode


def written(k: Tensor, v: Tensor, x: Tensor, pos: int) -> int:
    end = pos + x.shape[2]
    k[:, :, pos:end], v[:, :, pos:end] = x, x * 2
    return end


def by_sdpa(q: Tensor, x: Tensor, k: Tensor, v: Tensor, mask: Tensor, pos: int) -> Tensor:
    end = written(k, v, x, pos)
    return sdpa(q, k[:, :, :end], v[:, :, :end], mask[:, :end], enable_gqa=True)


def by_hand(q: Tensor, x: Tensor, k: Tensor, v: Tensor, mask: Tensor, pos: int) -> Tensor:
    end = written(k, v, x, pos)
    keys, values = (t[:, :, :end].repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scores = (q @ keys.mT / 4).masked_fill(~mask[:, :end], -torch.inf)
    return scores.float().softmax(-1).type_as(q) @ values


def cache(capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    k, v = torch.full((2, 1, 2, capacity, 16), torch.nan, dtype=torch.bfloat16)
    return k, v, torch.arange(capacity)[None] > 2


@torch.no_grad()
@pytest.mark.parametrize(
    "attend, queries, compiler",
    [(by_sdpa, 1, "eager"), (by_sdpa, 4, "aot_eager"), (by_sdpa, 64, "eager"),
     (by_hand, 1, "aot_eager"), (by_hand, 4, "eager"), (by_hand, 64, "aot_eager"),
     pytest.param(by_sdpa, 4, "inductor", marks=pytest.mark.inductor)],
)  # fmt: skip
def test_work_follows_what_is_filled(attend: Callable[..., Tensor], queries: int, compiler: str, work: Work) -> None:
    """In a cache of 16 times the rows as in one that is just large enough; with fewer heads in the cache, a mask, and NaN."""
    fn, done = kvfix(attend, compiler), {}
    for capacity in (8192, 512 + queries):
        ours, theirs = cache(capacity), cache(capacity)
        work.elements = 0
        for pos, rows in ((0, 512 - 2 * queries), (512 - 2 * queries, queries), (512 - queries, queries), (512, queries)):
            x = torch.randn(1, 2, rows, 16, dtype=torch.bfloat16)
            q = x.repeat(1, 2, 1, 1)
            torch.testing.assert_close(fn(q, x, *ours, pos), attend(q, x, *theirs, pos), atol=2e-2, rtol=2e-2)
            assert all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in zip(ours, theirs, strict=True))
        done[capacity] = work.elements
    assert 0 < done[8192] <= 1.1 * done[512 + queries], done
    assert not fxpass.reports()[-1].refused


Cache = tuple[Tensor, Tensor]


def as_it_is(q: Tensor, k: Tensor, v: Tensor, pos: int) -> Tensor:
    end = pos + q.shape[1]
    k[:, pos:end], v[:, pos:end] = q, q * 2
    return sdpa(q, k[:, :end], v[:, :end])


def in_two_lengths(q: Tensor, k: Tensor, v: Tensor, pos: int) -> Tensor:
    """The last ten rows, and half of what was there before."""
    out = as_it_is(q, k, v, pos)
    near, far = k[:, max(0, pos - 9) : pos + 1], v[:, : pos // 2 + 1]
    return out + (q @ near.mT).softmax(-1) @ near + (q @ far.mT).softmax(-1) @ far


def made_to_length(q: Tensor, k: Tensor, v: Tensor, pos: int) -> Tensor:
    end = pos + q.shape[1]
    k[:, pos:end], v[:, pos:end] = q, q * 2
    causal = torch.ones(q.shape[1], end, dtype=torch.bool).tril(pos)
    bias = torch.arange(end) * -0.1
    return sdpa(q, k[:, :end], v[:, :end], torch.where(causal, bias, -torch.inf))


def moved_in_place(q: Tensor, k: Tensor, v: Tensor, pos: int) -> Tensor:
    """What is read is written, too: scaled, turned, and a part of it zeroed."""
    out = as_it_is(q, k, v, pos)
    k[:, : pos + 1].mul_(0.9)
    v[:, : pos + 1] = v[:, : pos + 1].flip(1)
    v[:, pos // 2 : pos].zero_()
    return out + k[:, : pos + 1].mean(1, keepdim=True) + v[:, : pos + 1].amax(1, keepdim=True)


def looked_up(q: Tensor, k: Tensor, v: Tensor, pos: int) -> Tensor:
    """By index, ordered, joined, and the rest behind what is filled."""
    out = as_it_is(q, k, v, pos)
    rows = k[:, : pos + 1]
    found = rows[:, torch.tensor([0, pos // 2, -1])].sum(1, keepdim=True)
    joined = torch.cat([rows, q], 1).cumsum(1)[:, -1:]
    return out + found + joined + rows.sort(1).values[:, :1] + v[:, pos + 1 :].nan_to_num().sum(1, keepdim=True)


def whole_too(q: Tensor, k: Tensor, v: Tensor, pos: int) -> Tensor:
    return as_it_is(q, k, v, pos) + k.nan_to_num().sum(1, keepdim=True)


WHOLE = {moved_in_place, looked_up, whole_too}
"""These take all rows of a cache, or write to what may be any of them."""


def apart(rows: int) -> Cache:
    return torch.full((2, rows, 8), torch.nan), torch.full((2, rows, 8), torch.nan)


CACHES: dict[str, Callable[[int], Cache]] = {
    "apart": apart,
    "of two sizes": lambda rows: (apart(rows)[0], apart(rows + 40)[1]),
    "of one tensor": lambda rows: torch.full((2, 2, rows, 8), torch.nan).unbind(),  # type: ignore[dict-item]
    "turned": lambda rows: tuple(t.transpose(0, 1).contiguous().transpose(0, 1) for t in apart(rows)),  # type: ignore[dict-item]
}
STEPS = [0, 7, 8, 15, 16, 40, 63, 64, 90, 9, 10, 17, 93, 3, 30]
"""Positions: over the edges of windows, far ahead, to the last window, and back."""


@torch.no_grad()
@pytest.mark.parametrize(
    "step, made, compiler",
    [(as_it_is, "apart", "aot_eager"), (as_it_is, "of two sizes", "eager"), (as_it_is, "of one tensor", "aot_eager"),
     (as_it_is, "turned", "eager"), (in_two_lengths, "apart", "eager"), (in_two_lengths, "of two sizes", "aot_eager"),
     (made_to_length, "apart", "eager"), (moved_in_place, "apart", "eager"), (moved_in_place, "turned", "aot_eager"),
     (looked_up, "apart", "eager"), (whole_too, "of one tensor", "eager"),
     pytest.param(in_two_lengths, "turned", "inductor", marks=pytest.mark.inductor)],
)  # fmt: skip
def test_numbers_are_those_of_whole_caches(step: Callable[..., Tensor], made: str, compiler: str, work: Work) -> None:
    """For any positions, one after the other, in caches of several sizes; and what was compiled serves them all."""
    fn = kvfix(step, compiler)
    with parts_compiled(least=64) as parts:
        for capacity in (96, 512, 200):
            ours, theirs = CACHES[made](capacity), CACHES[made](capacity)
            for pos in STEPS:
                q = torch.randn(2, 7 if pos == 0 else 1, 8)
                torch.testing.assert_close(fn(q, *ours, pos), step(q, *theirs, pos), equal_nan=True)
                torch.testing.assert_close(ours, theirs, equal_nan=True, rtol=0, atol=0 if compiler == "eager" else 1e-6)
    report = fxpass.reports()[-1]
    assert not (report.refused or report.outside) and parts.count("core") <= 4, parts
    assert (512 in work.sizes) == (step in WHOLE)


def test_a_window_has_room_and_little_more() -> None:
    for length in (*range(1, 3000), 8191, 8192, 10**6 + 1):
        assert length <= window_for(length) <= max(length + 15, length * 17 / 16)
    assert len({window_for(length) for length in range(1, 8193)}) < 170


def cut_again(q: Tensor, k: Tensor, v: Tensor, pos: int, first: int = 5) -> Tensor:
    """A part of what is read meets what is read in another length."""
    out = as_it_is(q, k, v, pos)
    return out + (k[:, : pos + 1][:, :first] * v[:, :first]).sum(1, keepdim=True)


def with_a_refusal(q: Tensor, k: Tensor, v: Tensor, pos: int, first: int = 5) -> Tensor:
    return as_it_is(q, k, v, pos) + k[:, : pos + 1].amax(1, keepdim=True) + v[:, :first].roll(1).sum(1, keepdim=True)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
@pytest.mark.parametrize("step", [cut_again, with_a_refusal])
def test_a_graph_without_windows_is_right(step: Callable[..., Tensor], work: Work) -> None:
    fn, ours, theirs = kvfix(step), apart(300), apart(300)
    for pos, first in ((0, 1), (7, 3), (8, 4), (40, 30), (100, 6), (9, 2)):
        q = torch.randn(2, 7 if pos == 0 else 1, 8)
        torch.testing.assert_close(fn(q, *ours, pos, first), step(q, *theirs, pos, first), equal_nan=True)
    assert 300 in work.sizes


def with_a_result(q: Tensor, k: Tensor, v: Tensor, pos: int) -> tuple[Tensor, ...]:
    at = torch.arange(pos + 1)
    return as_it_is(q, k, v, pos), k[:, : pos + 1] * 2, at, at.mode().values


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxpass.KvfixWarning")
def test_a_result_that_is_refused_costs_no_window(work: Work) -> None:
    fn, ours, theirs = kvfix(with_a_result), apart(512), apart(512)
    for pos in STEPS:
        q = torch.randn(2, 7 if pos == 0 else 1, 8)
        torch.testing.assert_close(fn(q, *ours, pos), with_a_result(q, *theirs, pos), equal_nan=True)
    report = fxpass.reports()[-1]
    assert report.refused and not report.outside and 512 not in work.sizes


@torch.no_grad()
def test_small_caches_are_read_in_full(work: Work) -> None:
    fn = kvfix(as_it_is)
    for capacity, whole in ((64, True), (65, False)):
        torch._dynamo.reset()
        cache, work.sizes = apart(capacity), set()
        for pos in (0, 7, 8, 9):
            fn(torch.randn(2, 7 if pos == 0 else 1, 8), *cache, pos)
        assert (capacity in work.sizes) == whole
