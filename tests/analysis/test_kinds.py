"""Symbols that the next step does not move are bound when a core is compiled, and what was taken for one is corrected."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

import fxpass


def kinds() -> dict[str, str]:
    return {symbol.of: symbol.kind for symbol in fxpass.reports()[-1].symbols}


def one_core() -> bool:
    """Whether nothing but arithmetic on positions is left outside."""
    return [name for name, _, _ in fxpass.reports()[-1].parts if name != "prologue"] == ["core"]


class Rows:
    """An object with ints of its own, one of which repeats a size."""

    def __init__(self, rows: int) -> None:
        self.rows, self.k, self.pos = rows, torch.zeros(2 * rows, 32, 8), torch.zeros((), dtype=torch.int64)


def repeated_by_an_int(x: Tensor, c: Rows) -> Tensor:
    q = x.flatten(0, 1)
    start = int(c.pos)
    end = start + q.shape[1]
    assert q.shape[0] == 2 * c.rows
    c.k[:, start:end] = q
    c.pos += q.shape[1]
    return (q @ c.k[:, :end].mT).softmax(-1).matmul(c.k[:, :end]).view(2, c.rows, -1, 8)


def viewed_by_an_int(x: Tensor, c: Rows) -> Tensor:
    start = c.pos.item()
    end = start + x.shape[2]
    k = c.k.view(2, c.rows, 32, 8)
    k[:, :, start:end] = x
    c.pos += x.shape[2]
    return scaled_dot_product_attention(x, k[:, :, :end], k[:, :, :end]) * c.rows


def sized_only(x: Tensor, c: Rows) -> Tensor:
    start = c.pos
    end = start + x.shape[2]
    c.k[:, start:end] = x.flatten(0, 1)
    out = c.k[:, :end].sum(1)
    c.pos += x.shape[2]
    return out.unflatten(0, (2, -1)) + x.shape[1]


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("step", [repeated_by_an_int, viewed_by_an_int, sized_only])
def test_another_number_of_rows_is_another_core(step: Callable[[Tensor, Rows], Tensor], compiler: str) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    for rows in (2, 3, 4, 3):
        ours, theirs = Rows(rows), Rows(rows)
        for n in (4, 1, 1, 1):
            x = torch.rand(2, rows, n, 8)
            torch.testing.assert_close(compiled(x, ours), step(x, theirs))
            assert torch.equal(ours.k, theirs.k)
    assert one_core() and fxpass.reports()[-1].rewritten >= 2 and not fxpass.reports()[-1].refused
    assert "variant" in kinds().values()


def last_rows(x: Tensor, n: int) -> Tensor:
    return x[:, -n:] * 2


def first_rows(x: Tensor, n: int) -> Tensor:
    return x[:, :n].cumsum(1)


def numbered(x: Tensor, n: int) -> Tensor:
    return x * torch.arange(n)[:, None] + torch.ones(2, n, 1).tril()


def told_by_view(x: Tensor, n: int) -> Tensor:
    return x.reshape(2 * n, 8).softmax(0).view(2, n, 8) / n


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("use", [last_rows, first_rows, numbered, told_by_view])
@torch.no_grad()
def test_an_int_that_repeats_the_rows_of_a_chunk(use: Callable[[Tensor, int], Tensor], grows: bool) -> None:
    """``n`` moves as often as a position does, and is none: it says how many rows there are, which are verified and cropped."""

    def step(x: Tensor, k: Tensor, at: int, n: int) -> tuple[Tensor, Tensor]:
        if grows:
            k = torch.cat([k, x], 1)
        else:
            k[:, at : at + x.shape[1]] = x
        seen = k if grows else k[:, : at + x.shape[1]]
        return use(scaled_dot_product_attention(x, seen, seen), n), k

    compiled, at = torch.compile(step, backend="kvfix", options={"compiler": "eager"}), 0
    mine, eager = (torch.zeros(2, 0 if grows else 32, 8) for _ in range(2))
    for n in (5, 2, 3, 4, 2, 3, 2, 4):
        x = torch.rand(2, n, 8)
        (y, mine), (wanted, eager) = compiled(x, mine, at, n), step(x, eager, at, n)
        torch.testing.assert_close(y, wanted)
        at += n - 1
        mine, eager = (k[:, :at].clone() if grows else k for k in (mine, eager))
    report = fxpass.reports()[-1]
    assert one_core() and report.rewritten and not report.refused and not report.unbuffered, report
    assert kinds()["L['n']"] == "variant"


class Decoder(nn.Module):
    """Self-attention on a cache, cross-attention on an encoder's output of a length of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("k", torch.zeros(1, 16, 8))

    def forward(self, x: Tensor, encoded: Tensor, start: int) -> Tensor:
        end = start + x.shape[1]
        self.k[:, start:end] = x
        x = scaled_dot_product_attention(x, self.k[:, :end], self.k[:, :end])
        return scaled_dot_product_attention(x, encoded, encoded)


def test_another_encoder_length_is_another_core() -> None:
    ours, theirs = Decoder(), Decoder()
    compiled = torch.compile(ours, backend="kvfix", options={"compiler": "eager"})
    for length in (5, 7, 6, 9):
        encoded, start = torch.rand(1, length, 8), 0
        for n in (3, 1, 1, 1, 1):
            x = torch.rand(1, n, 8)
            torch.testing.assert_close(compiled(x, encoded, start), theirs(x, encoded, start))
            start += n
    assert one_core() and not fxpass.reports()[-1].refused
    assert kinds()["L['encoded'].size()[1]"] == "variant"
    assert kinds()["L['start']"] == "position"


def test_what_moves_with_every_call_is_no_variant_for_long() -> None:
    """The length keeps still while a graph is made, and grows from then on: a few cores, and one line in the report."""

    def step(x: Tensor, series: Tensor, k: Tensor, start: int) -> Tensor:
        k[:, start : start + 1] = x
        out = scaled_dot_product_attention(x, k[:, : start + 1], k[:, : start + 1])
        return out + series.sum(1, keepdim=True)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager"})
    for dtype, lengths in ((torch.float32, [5, 6, 6]), (torch.float64, [6, 6, *range(7, 20)])):
        ours, theirs = torch.zeros(1, 64, 8, dtype=dtype), torch.zeros(1, 64, 8, dtype=dtype)
        for start, length in enumerate(lengths, 2):
            x, series = torch.rand(1, 1, 8, dtype=dtype), torch.rand(1, length, 8, dtype=dtype)
            torch.testing.assert_close(compiled(x, series, ours, start), step(x, series, theirs, start))
        assert torch.equal(ours, theirs)
    assert fxpass.reports()[-1].corrected == ["L['series'].size()[1]"]
    assert "it has had too many values: series.size()[1]" in " ".join(str(fxpass.reports()[-1]).split())
    assert kinds()["L['series'].size()[1]"] == "growth" and len(fxpass.reports()) <= 4


def prefix_scales(x: Tensor, k: Tensor, at: int, prefix: int) -> Tensor:
    return x / x[:, :prefix].amax(1, keepdim=True)


def prefix_is_written(x: Tensor, k: Tensor, at: int, prefix: int) -> Tensor:
    x = x.clone()
    x[:, :prefix] = x[:, :prefix] - x[:, :prefix].mean(1, keepdim=True)
    return x


def prefix_masks(x: Tensor, k: Tensor, at: int, prefix: int) -> Tensor:
    return torch.where((torch.arange(x.shape[1]) < prefix)[:, None], x, 2 * x)


def prefix_of_the_cache(x: Tensor, k: Tensor, at: int, prefix: int) -> Tensor:
    return x + k[:, :prefix].mean(1, keepdim=True)


@pytest.mark.parametrize("scaled", [prefix_scales, prefix_is_written, prefix_masks, prefix_of_the_cache])
def test_an_int_that_only_another_prompt_moves(scaled: Callable[..., Tensor]) -> None:
    """A prompt of another length is no step at that length: nothing of its prefill is rewritten, and strict is content."""

    def step(x: Tensor, k: Tensor, at: int, prefix: int) -> Tensor:
        new = scaled(x, k, at, prefix)
        new = new if at == 0 else new[:, -1:]
        k[:, at : at + new.shape[1]] = new
        return scaled_dot_product_attention(new, k[:, : at + new.shape[1]], k[:, : at + new.shape[1]])

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    for prefix in (5, 8, 6):
        ours, theirs = torch.zeros(2, 24, 8), torch.zeros(2, 24, 8)
        for at in (0, *range(prefix, prefix + 6)):
            x = torch.rand(2, at + 1 if at else prefix, 8) + 1
            torch.testing.assert_close(compiled(x, ours, at, prefix), step(x, theirs, at, prefix))
            torch.testing.assert_close(ours, theirs)
    assert len(fxpass.reports()) == 3 and not fxpass.reports()[2].parts


def samples(y: Tensor, k: Tensor, n: int) -> Tensor:
    return (y.repeat_interleave(n, 0) @ torch.ones(8, n)).softmax(-1).topk(n - 1).values


def heads(y: Tensor, k: Tensor, n: int) -> Tensor:
    q = y[:, None].expand(-1, n, -1, -1)
    return scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


def table(y: Tensor, k: Tensor, n: int) -> Tensor:
    scores = y @ nn.functional.pad(k[0, ::n].mT, (0, n))
    return scores.amax(-1, keepdim=True) + k[:, torch.arange(n)].sum(1, keepdim=True)


def window(y: Tensor, k: Tensor, n: int) -> Tensor:
    return y @ k[:, :n].mT @ torch.ones(n, 8)


@pytest.mark.parametrize("use, kind", [(samples, "variant"), (heads, "variant"), (table, "variant"), (window, "position")])
@torch.no_grad()
def test_an_int_that_says_how_large_tensors_are(use: Callable[[Tensor, Tensor, int], Tensor], kind: str) -> None:
    """It moves once, in the middle: that says nothing of the next step. Where it is also a place, it is a position."""

    def step(x: Tensor, k: Tensor, at: int, n: int) -> Tensor:
        k[:, at : at + 1] = x
        return use(scaled_dot_product_attention(x, k[:, : at + 1], k[:, : at + 1]), k, n)

    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": True})
    ours, theirs = torch.zeros(2, 16, 8), torch.zeros(2, 16, 8)
    for at, n in enumerate((2, 2, 2, 4, 4, 2, 8), start=1):
        x = torch.rand(2, 1, 8)
        torch.testing.assert_close(compiled(x, ours, at, n), step(x, theirs, at, n))
        assert torch.equal(ours, theirs)
    report = fxpass.reports()[-1]
    assert kinds()["L['n']"] == kind and one_core() and not report.outside and len(fxpass.reports()) == 3


def at_the_end_of_a_mask(x: Tensor, k: Tensor, w: Tensor, long: Tensor) -> Tensor:
    end = long.shape[1]
    k[:, end - x.shape[1] : end] = x
    return scaled_dot_product_attention(x @ w, k[:, :end], k[:, :end], attn_mask=(long > 0)[:, None])


def at_the_last_place(x: Tensor, k: Tensor, w: Tensor, long: Tensor) -> Tensor:
    k[:, long.size(1) - 1] = x[:, -1] + long.cumsum(1)[:, -1:]
    keys = k[:, : long.size(1)]
    return (x @ w @ keys.mT).softmax(-1) @ keys


def round_a_ring(x: Tensor, k: Tensor, w: Tensor, long: Tensor) -> Tensor:
    k[:, (long.shape[1] - 1) % 8] = x[:, -1]
    return (x @ w @ k[:, :8].mT).softmax(-1) @ k[:, :8]


def along_the_second_dim(x: Tensor, k: Tensor, w: Tensor, long: Tensor) -> Tensor:
    start, heads = long.shape[1] - x.shape[1], k.view(2, 32, 2, 4).transpose(1, 2)
    heads[:, :, start : start + x.shape[1]] = x.unflatten(2, (2, 4)).transpose(1, 2)
    return x @ w + heads[:, :, : start + x.shape[1]].sum((1, 2)).repeat(1, 2)[:, None]


@pytest.mark.parametrize(
    "step, compiler",
    [(at_the_end_of_a_mask, "eager"), (at_the_end_of_a_mask, "aot_eager"), (at_the_last_place, "eager"),
     (round_a_ring, "eager"), (along_the_second_dim, "eager"), (along_the_second_dim, "aot_eager")],
)  # fmt: skip
def test_a_length_that_says_where_rows_go_is_a_position(step: Callable[..., Tensor], compiler: str) -> None:
    compiled = torch.compile(step, backend="kvfix", options={"compiler": compiler})
    ours, theirs, w = torch.zeros(2, 32, 8), torch.zeros(2, 32, 8), torch.rand(8, 8)
    for n, end in ((4, 4), (1, 5), (1, 6), (1, 7), (1, 8)):
        x, long = torch.rand(2, n, 8), torch.ones(2, end, dtype=torch.int64)
        torch.testing.assert_close(compiled(x, ours, w, long), step(x, theirs, w, long))
        assert torch.equal(ours, theirs)
    assert one_core() and len(fxpass.reports()) == 2 and not fxpass.reports()[-1].refused
    assert kinds()["L['long'].size()[1]"] == "position"


def as_long_as_its_mask(x: Tensor, k: Tensor, at: int, mask: Tensor) -> Tensor:
    k[:, at : at + x.shape[1]] = x
    return scaled_dot_product_attention(x, k[:, : at + x.shape[1]], k[:, : at + x.shape[1]], attn_mask=mask)


def in_its_own_words(x: Tensor, k: Tensor, at: int, mask: Tensor) -> Tensor:
    assert mask.shape[1] == at + x.shape[1]
    k[:, mask.shape[1] - x.shape[1] : mask.shape[1]] = x
    keys = k.narrow(1, 0, mask.size(-1))
    return (x @ keys.mT + mask.log()).softmax(-1) @ keys


def without_the_last(x: Tensor, k: Tensor, at: int, mask: Tensor) -> Tensor:
    k[:, at : at + x.shape[1]] = x
    before = k[:, : mask.shape[1] - 1]
    return (x @ k[:, : at + x.shape[1]].mT).masked_fill(~mask, -9.0).softmax(-1)[..., :-1] @ before


@pytest.mark.parametrize("step", [as_long_as_its_mask, in_its_own_words, without_the_last])
@torch.no_grad()
def test_a_size_that_a_guard_makes_of_a_position_is_one(step: Callable[..., Tensor]) -> None:
    """In a checkpoint, what is computed outside is an input: a number that equals a size comes in as that size."""

    def checkpointed(*args: Any) -> Any:
        return checkpoint(step, *args, use_reentrant=False)

    compiled = torch.compile(checkpointed, backend="kvfix", options={"compiler": "eager"})
    ours, theirs, at = torch.zeros(2, 32, 8), torch.zeros(2, 32, 8), 0
    for n in (4, 1, 1):
        x, mask = torch.rand(2, n, 8), torch.ones(n, at + n, dtype=torch.bool).tril(at)
        torch.testing.assert_close(compiled(x, ours, at, mask), step(x, theirs, at, mask))
        assert torch.equal(ours, theirs)
        at += n
    assert one_core() and len(fxpass.reports()) == 2 and not fxpass.reports()[-1].refused


def test_a_length_that_says_how_many_rows_go_is_none() -> None:
    def prefill(x: Tensor, k: Tensor) -> Tensor:
        k[:, : x.shape[1]] = x
        return scaled_dot_product_attention(x, k[:, : x.shape[1]], k[:, : x.shape[1]])

    compiled = torch.compile(prefill, backend="kvfix", options={"compiler": "eager"})
    ours, theirs = torch.zeros(2, 32, 8), torch.zeros(2, 32, 8)
    for n in (3, 5, 8, 9):
        x = torch.rand(2, n, 8)
        torch.testing.assert_close(compiled(x, ours), prefill(x, theirs))
    assert torch.equal(ours, theirs) and "position" not in kinds().values()


W = torch.linspace(-1, 1, 16).view(4, 4)


def by_rows(k: Tensor, p: int, n: int) -> Tensor:
    x = torch.ones(n, 1, 4)
    k[:n, p : p + 1] = x @ W
    return (k[:n, : p + 1].softmax(1) @ W).sum(1)


def by_a_size(k: Tensor, p: int, n: int) -> Tensor:
    k[:, p : p + 1] = torch.full((1, 4), 0.5) @ W
    return (torch.ones(n, 4) @ W).sum(0) + k[:, : p + 1].sum(1)


def given_rows(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``step``, which takes ``n`` from the size of a tensor."""

    def called(k: Tensor, p: int, like: Tensor) -> Tensor:
        return step(k, p, like.shape[0])

    return called


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("moving", [by_rows, by_a_size])
@torch.no_grad()
def test_work_that_leaves_the_core_is_said(moving: Callable[..., Tensor], strict: bool) -> None:
    """In the report and in a warning; with ``strict``, it raises. What has left it costs no more compilations or memory."""
    step = given_rows(moving)
    compiled = torch.compile(step, backend="kvfix", options={"compiler": "eager", "strict": strict})
    mine, eager = torch.zeros(64, 16, 4), torch.zeros(64, 16, 4)

    def call(n: int, p: int) -> None:
        torch.testing.assert_close(compiled(mine, p, torch.zeros(n)), step(eager, p, torch.zeros(n)))
        torch.testing.assert_close(mine, eager)

    with pytest.raises(fxpass.KvfixError, match="outside") if strict else pytest.warns(fxpass.KvfixWarning, match="outside"):
        for n in range(3, 15):
            call(n, n % 16)
    assert fxpass.reports()[-1].outside
    if strict:
        return
    alive = live_graphs()
    for n in range(20, 60):
        call(n, n % 15 + 1)
    assert live_graphs() <= alive


def live_graphs() -> int:
    gc.collect()
    return sum(isinstance(one, torch.fx.Graph) for one in gc.get_objects())
