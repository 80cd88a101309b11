"""Caches that a `cat` makes longer on each call: numbers, caches and their layout as in eager, in one static core."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from compilations import parts_compiled
from torch import nn
from torch._dynamo.utils import counters

import fxpass
from fxpass.execute.buffers import growth
from fxpass.execute.compilation import compilers
from fxpass.torch_internals.inductor import names

STEPS = 62
"""From 5 rows on: capacities of 64 and 128."""


class Attention(nn.Module):
    """Two heads of 8; ``dim`` is that of the rows in the keys and values that it joins."""

    dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def heads(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [t.view(*x.shape[:2], 2, 8).transpose(1, 2) for t in self.qkv(x).chunk(3, -1)]

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        if past is not None:
            k, v = self.join(past[0], k), self.join(past[1], v)
        return self.attend(q, k, v), (k, v)

    def join(self, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat([past, new], 2)


class Listed(Attention):
    def forward(self, x: torch.Tensor, past: Any) -> Any:
        y, new = super().forward(x, past)
        return y, list(new)


class Mapped(Attention):
    """A dict by module."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        y, new = super().forward(x, None if past is None else past[self])
        return y, {self: new}


class Held(Attention):
    """On attributes of an object that the caller hands in."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        past.k = k if past.k is None else torch.cat([past.k, k], 2)
        past.v = v if past.v is None else torch.cat([past.v, v], 2)
        return self.attend(q, past.k, past.v), past


class Cache:
    def __init__(self) -> None:
        self.k: Any = None
        self.v: Any = None


class Hooked(nn.Module):
    """Hooks join what linear layers give, in a dict by module: the attention knows of none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.cache: dict[nn.Module, torch.Tensor] = {}
        for layer in (self.k, self.v):
            layer.register_forward_hook(self.join)

    def join(self, module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        if module in self.cache:
            output = torch.cat([self.cache[module], output], dim=1)
        self.cache[module] = output.detach()
        return self.cache[module]

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        self.cache = past or {}
        q, k, v = (t.view(*t.shape[:2], 2, 8).transpose(1, 2) for t in (self.q(x), self.k(x), self.v(x)))
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2), self.cache


class Rows(Attention):
    """[B, s, H, D], the rows before the heads."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = (t.transpose(1, 2) for t in self.heads(x))
        if past is not None:
            k, v = torch.cat((past[0], k), dim=1), torch.cat((past[1], v), dim=1)
        return self.attend(*(t.transpose(1, 2) for t in (q, k, v))), (k, v)


class Flat(Attention):
    """[B, s, H * D]: split into heads once it is joined."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.qkv(x).chunk(3, -1)
        if past is not None:
            k, v = torch.cat([past[0], k], -2), torch.cat([past[1], v], -2)
        heads = [t.view(x.shape[0], -1, 2, 8).transpose(1, 2) for t in (q, k, v)]
        return self.attend(*heads), (k, v)


class Products(Attention):
    """Attention written out, with a bias by distance and a causal mask of the joined length."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = q @ k.transpose(-1, -2) / 8**0.5
        at, end = torch.arange(k.shape[2] - q.shape[2], k.shape[2]), torch.arange(k.shape[2])
        scores = scores - 0.1 * (at[:, None] - end).abs()
        scores = scores.masked_fill(end > at[:, None], -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Masked(Attention):
    """A mask is joined along with the keys."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        n, seen = x.shape[1], torch.ones(x.shape[0], x.shape[1], dtype=torch.bool)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
            seen = torch.cat([past[2], seen], 1)
        mask = seen & (torch.arange(k.shape[2]) % 3 != 1)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None].expand(-1, -1, n, -1))
        return y.transpose(1, 2).flatten(2), (k, v, seen)


class Biased(Attention):
    """A bias that the caller makes longer is added: it is one row ahead of the keys that come in."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        if past is None:
            return self.attend(q, k, v), (k, v, torch.zeros(x.shape[1] + 1))
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=past[2].expand(2, 1, 1, -1))
        return y.transpose(1, 2).flatten(2), (k, v)


MODELS = [Attention, Listed, Mapped, Held, Hooked, Rows, Flat, Products, Masked, Biased]


def tensors(cache: Any) -> list[torch.Tensor]:
    if isinstance(cache, Cache):
        return [cache.k, cache.v]
    if isinstance(cache, dict):
        cache = [t for held in cache.values() for t in (held if isinstance(held, tuple) else [held])]
    return list(cache)


def same(found: Any, wanted: Any, laid_out: bool = True) -> None:
    """Caches that are equal, laid out alike, in as much memory."""
    found, wanted = tensors(found), tensors(wanted)
    for mine, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
        if not laid_out:  # Inductor chooses strides for a prefill
            continue
        assert (mine.stride(), mine.storage_offset()) == (other.stride(), other.storage_offset())
        assert mine.untyped_storage().nbytes() == other.untyped_storage().nbytes()
    assert len({t.data_ptr() for t in found}) == len(found)


def longer(cache: Any, model: nn.Module) -> Any:
    """The bias of `Biased` for the next call."""
    return (*cache[:2], torch.arange(cache[0].shape[2] + 1) % 3 * 0.5) if isinstance(model, Biased) else cache


def start(model: nn.Module) -> Any:
    return Cache() if isinstance(model, Held) else None


def compiled(model: nn.Module, compiler: str = "eager") -> Callable[..., Any]:
    return torch.compile(model, backend="kvfix", options={"compiler": compiler})


def is_whole(graphs: int = 3) -> None:
    """At most so many graphs, of which the last is one static core, and what only makes numbers."""
    assert counters["stats"]["unique_graphs"] <= graphs and not counters["graph_break"]
    report = fxpass.reports()[-1]
    assert report.rewritten and not report.refused and not report.unfit and not report.unbuffered, report
    assert [name for name, static, _ in report.parts if static] == ["core"]
    assert [name for name, static, _ in report.parts] in (["core"], ["prologue", "core"])


def both(
    fn: Callable[..., Any], model: nn.Module, x: torch.Tensor, pasts: Any, laid_out: bool = True, **close: float
) -> tuple[Any, Any]:
    """One call on both sides, each with its own of ``pasts``; the caches that come of it, which are equal, as results are."""
    y, mine = fn(x, pasts[0])
    wanted, other = model(x, pasts[1])
    torch.testing.assert_close(y, wanted, **close)
    same(mine, other, laid_out)
    return mine, other


@torch.no_grad()
def decode(model: nn.Module, fn: Callable[..., Any], steps: int = STEPS, rows: int = 1, laid_out: bool = True) -> None:
    mine, other = start(model), start(model)
    for step in range(steps):
        x = torch.randn(2, 5 if step == 0 else rows, 16)
        mine, other = both(fn, model, x, (mine, other), laid_out or step > 2, atol=1e-5, rtol=1e-5)
        mine, other = longer(mine, model), longer(other, model)


@pytest.mark.parametrize("kind", MODELS)
def test_every_step_is_eagers(kind: type[nn.Module]) -> None:
    model = kind().eval()
    decode(model, compiled(model))
    is_whole()


@pytest.mark.parametrize("kind", [Attention, Products])
def test_with_aot_autograd(kind: type[nn.Module]) -> None:
    model = kind().eval()
    decode(model, compiled(model, "aot_eager"), 12)
    is_whole()


class Deep(nn.Module):
    """Layers that repeat."""

    def __init__(self, kind: type[nn.Module] = Products) -> None:
        super().__init__()
        self.layers = nn.ModuleList(kind() for _ in range(4))
        self.out = nn.ModuleList(nn.Linear(16, 16) for _ in self.layers)

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        kept: list[torch.Tensor] = []
        for i, (layer, out) in enumerate(zip(self.layers, self.out, strict=True)):
            y, new = layer(x, None if past is None else past[2 * i : 2 * i + 2])
            x = x + out(y)
            kept += new
        return x, kept


@pytest.mark.inductor
def test_with_inductor() -> None:
    model = Deep(Attention).eval()
    with parts_compiled(least=8) as made:
        decode(model, compiled(model, "inductor"), 20, laid_out=False)
    assert made.count("core") == 1, made
    is_whole()


@pytest.mark.parametrize("kind", [Products, Masked])
def test_a_core_is_compiled_once_for_all_capacities(kind: type[nn.Module]) -> None:
    model = kind().eval()
    with parts_compiled(least=4) as made:
        decode(model, compiled(model, "aot_eager"), 36)
    assert made.count("core") == 1, made


@pytest.mark.parametrize("kind", [Products, Rows])
def test_layers_that_repeat_are_one_piece_for_all_capacities(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """As Inductor would compile them: a head, a layer and a tail, each of which takes the capacity where it needs it."""
    pieces: list[list[Any]] = []

    def whole(gm: torch.fx.GraphModule, fakes: list[Any], *_: Any) -> Any:
        pieces.append([f for f in fakes if isinstance(f, torch.SymInt)])
        return gm.forward

    monkeypatch.setattr(compilers, "_whole", whole)
    monkeypatch.setattr(names, "compile_fx", lambda gm, *_, **__: gm.forward)
    model = Deep(kind).eval()
    with parts_compiled(least=4) as made:
        decode(model, compiled(model, "inductor"), 20)
    assert made.count("core") == 1 and len(pieces) == 3 and any(len(sizes) == 1 for sizes in pieces), pieces
    is_whole()


def test_several_rows_at_once() -> None:
    model = Products().eval()
    decode(model, compiled(model), 20, rows=3)
    is_whole()


SQUARES: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "last rows of a triangle": lambda ends, n: (ends[:, None] >= ends)[-n:],
    "from a place": lambda ends, n: (ends[:, None] >= ends)[ends.shape[0] - n :],
    "narrow": lambda ends, n: (ends[:, None] >= ends).narrow(0, ends.shape[0] - n, n),
    "by places": lambda ends, n: ends >= ends[-n:, None],
    "of a sum": lambda ends, n: ends >= (torch.ones_like(ends).cumsum(0) - 1)[-n:, None],
    "of a bias": lambda ends, n: -0.1 * (ends[:, None] - ends).abs().float()[-n:],
}


@pytest.mark.parametrize("square", SQUARES.values(), ids=SQUARES)
@torch.no_grad()
def test_rows_of_a_mask_for_as_many_queries_as_come_in(square: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    """The last rows of what is as long as the cache, as many as the caller hands in: a step of each number has one core."""

    class Squared(Attention):
        def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            mask = square(torch.arange(k.shape[2]), q.shape[2])
            return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)

    model = Squared().eval()
    fn, mine, other = compiled(model), None, None
    with parts_compiled(least=64) as made:
        for rows in (5, 3, 2, 4, 1, 1, 3):
            mine, other = both(fn, model, torch.randn(2, rows, 16), (mine, other), atol=1e-5, rtol=1e-5)
    assert made.count("core") == 2, made
    is_whole()


EDITS: dict[str, Callable[[list[torch.Tensor]], list[torch.Tensor]]] = {
    "fork": lambda past: [t.clone() for t in past],
    "copied": copy.deepcopy,
    "cropped": lambda past: [t[:, :, :-2] for t in past],
    "reordered": lambda past: [t.index_select(0, torch.tensor([1, 0])) for t in past],
    "written": lambda past: [t.mul_(0.5) for t in past],
    "row written": lambda past: [t[:, :, 1].zero_() is None or t for t in past],
    "strided": lambda past: [t.transpose(1, 2).contiguous().transpose(1, 2) for t in past],
    "exchanged": lambda past: past[::-1],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@torch.no_grad()
def test_what_the_caller_does_to_a_past(edit: Callable[[list[torch.Tensor]], list[torch.Tensor]]) -> None:
    model = Attention().eval()
    fn = compiled(model)
    mine: Any = None
    other: Any = None
    for step in range(16):
        x = torch.randn(2, 5 if step == 0 else 1, 16)
        mine, other = both(fn, model, x, (mine, other), atol=1e-5, rtol=1e-5)
        if step > 3 and step % 3 == 0:
            mine, other = edit(list(mine)), edit(list(other))
            mine, other = tuple(mine), tuple(other)
    is_whole(4)


@torch.no_grad()
def test_old_pasts_and_what_comes_out_are_nobody_elses() -> None:
    model = Attention().eval()
    fn = compiled(model)
    past: Any = None
    kept = []
    for step in range(12):
        x = torch.randn(2, 5 if step == 0 else 1, 16)
        _, past = fn(x, past)
        kept.append((past, [t.clone() for t in past]))
    for past, before in kept:
        assert all(torch.equal(a, b) for a, b in zip(past, before, strict=True))
    for past, _ in (kept[6], kept[9], kept[6], kept[11]):
        x = torch.randn(2, 1, 16)
        new, other = both(fn, model, x, (past, past))
        new[0].zero_()
    is_whole()


@torch.no_grad()
def test_two_conversations_in_turn() -> None:
    model = Attention().eval()
    fn = compiled(model)
    pasts: list[Any] = [None, None]
    others: list[Any] = [None, None]
    for step in range(24):
        who = step > 3 and step % 2
        x = torch.randn(2, 1 if pasts[who] else 4, 16)
        pasts[who], others[who] = both(fn, model, x, (pasts[who], others[who]))
    is_whole()


@torch.inference_mode()
def test_without_version_counters() -> None:
    model = Attention().eval()
    fn = compiled(model)
    mine: Any = None
    other: Any = None
    for step in range(9):
        x = torch.randn(2, 5 if step == 0 else 1, 16)
        mine, other = both(fn, model, x, (mine, other))
        if step == 6:
            mine[0][:, :, 2].zero_()
            other[0][:, :, 2].zero_()
    is_whole()


@torch.no_grad()
def test_what_has_another_size_on_each_call_gets_no_buffers() -> None:
    model = Attention().eval()
    fn = compiled(model)
    with pytest.warns(fxpass.KvfixWarning, match="KV202"):
        for length in (5, 9, 3, 12, 4, 30, 7, 6, 11, 3, 8):
            x, past = torch.randn(2, 1, 16), (torch.randn(2, 2, length, 8), torch.randn(2, 2, length, 8))
            new, other = both(fn, model, x, (past, past))
    assert fxpass.reports()[-1].unbuffered.startswith("KV202")
    assert counters["stats"]["unique_graphs"] <= 4


class Stacked(Attention):
    """Keys and values in one tensor, in and out."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        return self.attend(q, k, v), torch.stack([k, v])


class Shown(Attention):
    """What is made of the keys leaves, too: attention weights, and a mask that is longer than the rows before."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        weights = (q @ k.mT).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2), (k, v, weights, torch.ones(2, k.shape[2]).cumsum(1) % 2)


@pytest.mark.parametrize("kind", [Stacked, Shown])
def test_results_as_long_as_the_cache_are_cut(kind: type[nn.Module]) -> None:
    model = kind().eval()
    with mock.patch.object(growth, "LEAST", 8):
        decode(model, compiled(model), 24)
    is_whole()


class Turns(Attention):
    """A mask that the caller makes longer by the rows that it hands in."""

    def forward(self, x: torch.Tensor, past: Any, mask: Any = None) -> Any:
        q, k, v = self.heads(x)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        at = torch.arange(k.shape[2])
        mask = mask[:, None, None].bool() & (at <= at[-x.shape[1] :, None])
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2), (k, v)


@pytest.mark.parametrize("rows", [[1, 1, 3, 1, 1, 5, 1, 4, 1], [3, 2, 4, 5, 2, 3], [3, 1, 1, 2, 1, 5, 1]])
@torch.no_grad()
def test_turns_of_a_conversation_with_a_mask(rows: list[int]) -> None:
    """The mask is as long as the cache with the rows that are joined to it, whose number is no length: one core for all."""
    model, mask, mine, other = Turns().eval(), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]), None, None
    fn = compiled(model)
    with parts_compiled(least=64) as made:
        for step, n in enumerate([4, *rows]):
            mask = nn.functional.pad(mask, (0, n), value=1) if step else mask
            x = torch.randn(2, n, 16)
            (y, mine), (wanted, other) = fn(x, mine, mask), model(x, other, mask)
            torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)
            same(mine, other)
    kinds = len({n > 1 for n in rows})
    assert counters["stats"]["unique_graphs"] == 1 + kinds and made.count("core") == kinds, made
    assert all("buffer(" in report.after for report in fxpass.reports()[1:])


class Counted(Attention):
    """How many rows there are is counted, too, and a mask that long is added to the scores."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        past.k = k if past.k is None else torch.cat([past.k, k], 2)
        past.v = v if past.v is None else torch.cat([past.v, v], 2)
        past.seen += x.shape[1]
        scores = q @ past.k.mT + (torch.arange(past.seen) % 3 == 1) * -9.0
        return (scores.softmax(-1) @ past.v).transpose(1, 2).flatten(2), past


@torch.no_grad()
def test_a_counter_that_a_guard_ties_to_the_length() -> None:
    """The counter is met first in the first step, where the prompt has been as long."""
    model = Counted().eval()
    fn, mine, other = compiled(model), Cache(), Cache()
    for cache in (mine, other):
        cache.k = cache.v = torch.empty(2, 2, 0, 8)
        cache.seen = 0  # type: ignore[attr-defined]
    for step in range(12):
        mine, other = both(fn, model, torch.randn(2, 1 if step else 5, 16), (mine, other), atol=1e-5, rtol=1e-5)
    is_whole(2)


class WindowBesideAll(Attention):
    """One cache grows for good, and one until it is as long as a window, which the cache object tells."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        near = [k, v]
        rows, n = past.window - 1, x.shape[1]
        at = torch.arange(rows + n if past.seen >= past.window else past.seen + n) + max(past.seen - rows, 0)
        is_near = (at <= (new := torch.arange(n)[:, None] + past.seen)) & (at > new - past.window)
        if past.k is not None:
            k, v = torch.cat([past.k, k], 2), torch.cat([past.v, v], 2)
            near = [torch.cat(pair, 2) for pair in zip(past.near, near, strict=True)]
        past.seen, past.k, past.v, past.near = past.seen + n, k, v, [t[:, :, -rows:] for t in near]
        y = nn.functional.scaled_dot_product_attention(q, *near, attn_mask=is_near)
        return self.attend(q, k, v) + y.transpose(1, 2).flatten(2), past


@torch.no_grad()
def test_the_width_of_a_window_is_no_length_that_meets_it() -> None:
    """The cache that grows is as long as the window is wide when the step is traced that all further steps are like."""
    model, pasts = WindowBesideAll().eval(), (Cache(), Cache())
    fn = compiled(model)
    for past in pasts:
        past.seen, past.window = 0, WIDTH  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fxpass.KvfixWarning)  # of the step that fills the window
        for step in range(20):
            x = torch.randn(2, 1 if step else 4, 16)
            torch.testing.assert_close(fn(x, pasts[0])[0], model(x, pasts[1])[0], atol=1e-5, rtol=1e-5)
            mine, other = ([past.k, past.v, *past.near] for past in pasts)  # type: ignore[attr-defined]
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    is_whole(4)


@torch.no_grad()
def test_batches_in_any_order() -> None:
    """What has had a buffer in one graph has one in the next, whatever the lengths were of the calls before."""
    model, generator = Attention().eval(), torch.Generator().manual_seed(0)
    fn, pasts = compiled(model), {}
    for _ in range(30):
        batch = 1 + int(torch.randint(0, 4, (), generator=generator))
        mine, other = pasts.get(batch, (None, None))
        x = torch.randn(batch, 5 if mine is None else 1, 16)
        pasts[batch] = both(fn, model, x, (mine, other), laid_out=False, atol=1e-5, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] <= 5
    assert all("buffer(" in report.after for report in fxpass.reports()[3:])


class Convolved(Attention):
    """The last rows of what goes in are kept for a convolution, beside keys and values that grow."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        state, *caches = past or (x.new_zeros(2, 3, 16),)
        rows = torch.cat([state, x], 1)
        x = rows.unfold(1, 4, 1).mean(-1)
        y, new = super().forward(x, caches or None)
        return y, (rows[:, -3:].contiguous(), *new)


@torch.no_grad()
def test_the_state_of_a_convolution_needs_no_buffer() -> None:
    model = Convolved().eval()
    decode(model, compiled(model), 12)
    is_whole(2)
    assert {name for name, *_ in fxpass.reports()[-1].buffers} == {"past[1]", "past[2]"}


SHIFTS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "joined": lambda state, x: torch.cat([state[:, :, 1:], x], 2),
    "cut": lambda state, x: torch.cat([state, x], 2)[:, :, 1:],
    "copied": lambda state, x: torch.cat([state, x], 2)[:, :, -3:].contiguous(),
    "rolled": lambda state, x: torch.cat([state, x], 2).roll(-1, 2)[:, :, :3].clone(),
}


class Recurrent(nn.Module):
    """The state of a convolution beside one that has as many rows and channels, is made of it, and is longer."""

    def __init__(self, shift: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        states, state = past or (None, x.new_zeros(2, 8, 3))
        y = torch.cat([state, x], 2).mean(2)[:, :, None] * torch.arange(16)
        states = y if states is None else states * 0.5 + y
        return states @ states.mT, (states, self.shift(state, x))


@pytest.mark.parametrize("shift", SHIFTS)
@torch.no_grad()
def test_a_state_that_stays_as_long_beside_a_longer_one(shift: str) -> None:
    model = Recurrent(SHIFTS[shift])
    fn = compiled(model)
    for _ in range(2):
        mine = other = None
        for _ in range(5):
            mine, other = both(fn, model, torch.randn(2, 8, 1), (mine, other), atol=1e-5, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] == 2
    assert not any(report.buffers or report.symbols for report in fxpass.reports())


@torch.no_grad()
def test_prompts_of_many_lengths_are_no_work_outside() -> None:
    """The graph of the prompts has no step: what is left symbolic in it is as in stock, and no reason for a warning."""
    model = Attention().eval()
    fn = compiled(model)
    for prompt in (8, 5, 16, 3, 7, 9, 11, 6):
        mine = other = None
        for step in range(4):
            mine, other = both(fn, model, torch.randn(2, 1 if step else prompt, 16), (mine, other), atol=1e-5, rtol=1e-5)
    report = fxpass.reports()[-1]
    assert counters["stats"]["unique_graphs"] == 3 and report.corrected and not report.outside, report


class Verified(Attention):
    """Several rows at once, of which the caller wants some of the last: they are cut outside."""

    def forward(self, x: torch.Tensor, past: Any, keep: int) -> Any:
        y, new = super().forward(x, past)
        return y[:, -keep:] * 2, new


@pytest.mark.parametrize("rows", [(4,), (2, 3, 4)])
@torch.no_grad()
def test_as_many_rows_leave_as_the_caller_says(rows: tuple[int, ...]) -> None:
    model = Verified().eval()
    fn, mine, other = compiled(model), None, None
    for step in range(13):
        x = torch.randn(2, 5 if step == 0 else rows[step % len(rows)], 16)
        keep = x.shape[1] if len(rows) > 1 else (1, 1, 2, 3, 4)[step % 5]
        (y, mine), (wanted, other) = fn(x, mine, keep), model(x, other, keep)
        torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)
        same(mine, other)
    report = fxpass.reports()[-1]
    assert [name for name, static, _ in report.parts if static] == ["core"] and not report.outside
    assert not report.unbuffered and not report.refused and "buffer(" in report.after


class Before(Attention):
    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        if past is not None:
            k, v = torch.cat([k, past[0]], 2), torch.cat([v, past[1]], 2)
        return self.attend(q, k, v), (k, v)


class Written(Attention):
    def forward(self, x: torch.Tensor, past: Any) -> Any:
        if past is not None:
            past[0].mul_(0.9)
            past[1].mul_(0.9)
        return super().forward(x, past)


def test_rows_before_the_past_are_a_series_and_its_copy() -> None:
    model = Before().eval()
    decode(model, compiled(model), 24)
    is_whole()


@pytest.mark.parametrize("kind", [Written])
def test_what_gets_no_buffer_is_eagers(kind: type[nn.Module]) -> None:
    model = kind().eval()
    with pytest.warns(fxpass.KvfixWarning, match="KV206"):
        decode(model, compiled(model), 14, laid_out=False)
    assert not any("buffer(" in report.after for report in fxpass.reports())


def into(out: torch.Tensor, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """``past`` and ``new`` in new memory, the latter first."""
    out[:, :, past.shape[2] :] = new
    out[:, :, : past.shape[2]] = past
    return out


def longer_by(past: torch.Tensor, new: torch.Tensor) -> list[int]:
    return [*past.shape[:2], past.shape[2] + new.shape[2], past.shape[3]]


def padded(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out = nn.functional.pad(past, (0, 0, 0, new.shape[2]))
    out[:, :, -new.shape[2] :] = new
    return out


def padded_by_one(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out = nn.functional.pad(past, (0, 0, 0, 1))
    out[..., -1, :] = new[:, :, 0]
    return out


def chosen(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Padded, and nothing written: new rows are where the old ones end."""
    is_old = torch.arange(past.shape[2] + 1) < past.shape[2]
    return torch.where(is_old[:, None], nn.functional.pad(past, (0, 0, 0, 1), value=3.0), new)


def put_in(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return nn.functional.pad(past, (0, 0, 0, 1)).select_scatter(new[:, :, 0], 2, past.shape[2])


def in_rows(out: torch.Tensor, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out.narrow(2, 0, past.shape[2]).copy_(past)
    out.narrow(-2, past.shape[2], new.shape[2]).copy_(new)
    return out


def around(join: Callable[..., torch.Tensor], *order: int) -> Callable[..., torch.Tensor]:
    """``join`` of tensors whose dims are in another ``order``."""
    back = [order.index(d) for d in range(4)]
    return lambda past, new: join([past.permute(order), new.permute(order)]).permute(back).contiguous()


def put_by_index(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out = nn.functional.pad(past, (0, 0, 0, new.shape[2]))
    out[:, :, torch.arange(new.shape[2]) + past.shape[2]] = new
    return out


def added(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return nn.functional.pad(past, (0, 0, 0, 1)) + nn.functional.pad(new, (0, 0, past.shape[2], 0))


def added_to(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out = nn.functional.pad(past, (0, 0, 0, 1))
    out[:, :, -1] += new[:, :, 0]
    return out


def behind(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """The new rows are padded in front, and the old ones are written there."""
    out = nn.functional.pad(new, (0, 0, past.shape[2], 0))
    out[:, :, : past.shape[2]] = past
    return out


def scattered(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    longer = nn.functional.pad(past, (0, 0, 0, 1))
    masked = longer.masked_scatter((torch.arange(longer.shape[2]) == past.shape[2])[:, None], new)
    return longer.slice_scatter(new, 2, -1).index_copy(2, torch.tensor([past.shape[2]]), (new + masked[:, :, -1:]) / 2)


JOINS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "concat": lambda past, new: torch.concat((past, new), dim=-2),
    "hstack": around(torch.hstack, 0, 2, 1, 3),
    "vstack": around(torch.vstack, 2, 0, 1, 3),
    "dstack": lambda past, new: torch.dstack((past, new)),
    "cat(out=)": lambda past, new: torch.cat([past, new], 2, out=torch.empty(longer_by(past, new))),
    "new_zeros": lambda past, new: into(past.new_zeros(longer_by(past, new)), past, new),
    "empty": lambda past, new: into(torch.empty(longer_by(past, new)), past, new),
    "pad": padded,
    "pad and select": padded_by_one,
    "pad and where": chosen,
    "pad and select_scatter": put_in,
    "pad and an index": put_by_index,
    "pad and add": added,
    "pad and add in place": added_to,
    "pad in front": behind,
    "pad and scatter": scattered,
    "narrow": lambda past, new: in_rows(past.new_empty(longer_by(past, new)), past, new),
    "of half": lambda past, new: torch.cat([past.half(), new], 2),
    "of what is reordered": lambda past, new: torch.cat([past.index_select(0, torch.tensor([1, 0])), new], 2),
    "of what is scaled": lambda past, new: torch.cat([past * 0.9, new], 2),
}


def joined_by(join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> nn.Module:
    model = Attention().eval()
    model.join = join  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("way", JOINS)
def test_other_ways_to_join(way: str) -> None:
    """In two graphs, but for operators that ask how the past lies in memory, which is otherwise after the prompt."""
    model = joined_by(JOINS[way])
    with mock.patch.object(growth, "LEAST", 8):
        decode(model, compiled(model), 12)
    is_whole(3 if way in ("of half", "of what is scaled") else 2)


class Twice(Attention):
    """Two steps in one call: what is joined is read, and joined again."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        y, past = super().forward(x, past)
        z, past = super().forward(y[:, -1:], past)
        return torch.cat([y, z], 1), past


class ReadLater(Attention):
    """What there was and what each join made is read once all rows are joined."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        if past is None:
            return self.attend(q, k, v), (k, v)
        pasts = [past]
        for rows in ((k, v), (k * 2, v + 1)):
            pasts.append(tuple(torch.cat(pair, 2) for pair in zip(pasts[-1], rows, strict=True)))
        return sum(self.attend(q, *each) for each in pasts), pasts[-1]


class Between(Attention):
    """The first of two joins is a result, too, and the next past."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        y, past = super().forward(x, past)
        behind = tuple(torch.cat([t, t[:, :, -1:] * 2], 2) for t in past)
        return y + self.attend(self.heads(x)[0], *behind), past


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", [Twice, ReadLater, Between])
def test_joins_one_after_the_other(kind: type[nn.Module], compiler: str) -> None:
    """One buffer, into which each join writes."""
    model = kind().eval()
    with parts_compiled(least=16) as made:
        decode(model, compiled(model, compiler), 12, laid_out=compiler == "eager")
    is_whole()
    assert made == ["core"] and fxpass.reports()[-1].buffers, made


@torch.no_grad()
def test_joins_of_any_number_of_rows_one_after_the_other() -> None:
    """As many rows as come in, and one more: no input says how many those are, and there is no buffer."""
    model = Twice().eval()
    fn, mine, other = compiled(model), None, None
    with pytest.warns(fxpass.KvfixWarning, match="KV104"):
        for rows in (5, 2, 3, 4, 2):
            mine, other = both(fn, model, torch.randn(2, rows, 16), (mine, other), atol=1e-5, rtol=1e-5)
    assert not fxpass.reports()[-1].buffers


class OfTwoDims(Attention):
    """Rows that are keys and values in one, [s, D], and nothing else that grows."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, _ = self.qkv(x[0]).chunk(3, -1)
        k = k * 1 if past is None else self.join(past[0], k)
        return (q @ k.mT).softmax(-1) @ k, (k,)


OF_TWO_DIMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "concat": lambda past, new: torch.concat((past, new), 0),
    "concatenate": lambda past, new: torch.concatenate((past, new), axis=-2),
    "vstack": lambda past, new: torch.vstack((past, new)),
    "hstack": lambda past, new: torch.hstack((past.mT, new.mT)).mT.contiguous(),
    "column_stack": lambda past, new: torch.column_stack((past.mT, new.mT)).mT.contiguous(),
}


@pytest.mark.parametrize("join", OF_TWO_DIMS.values(), ids=OF_TWO_DIMS)
def test_other_ways_to_join_two_dims(join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    model = OfTwoDims().eval()
    model.join = join  # type: ignore[method-assign]
    with mock.patch.object(growth, "LEAST", 8):
        decode(model, compiled(model), 12)
    is_whole()


def read_between(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out = past.new_zeros(longer_by(past, new))
    out[:, :, : past.shape[2]] = past
    seen = out.sum(2, keepdim=True)
    out[:, :, past.shape[2] :] = new + seen
    return out


def overlapping(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out = past.new_zeros(longer_by(past, new))
    out[:, :, : past.shape[2]] = past
    out[:, :, past.shape[2] - 1 : -1] = new
    return out


def written_twice(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out = into(past.new_empty(longer_by(past, new)), past, new)
    out[:, :, 1:2] = new
    return out


def written_meanwhile(past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    out, kept = past.new_empty(longer_by(past, new)), new.clone()
    out[:, :, past.shape[2] :] = kept
    kept.zero_()
    out[:, :, : past.shape[2]] = past + kept
    return out


@pytest.mark.parametrize("join", [read_between, overlapping, written_twice, written_meanwhile])
def test_what_is_no_join_is_eagers(join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    model = joined_by(join)
    decode(model, compiled(model), 8)


class Registered(Attention):
    """Keys and values are buffers of the module, replaced in each step, beside one that stays and one that is written."""

    def __init__(self, rows: int | None) -> None:
        super().__init__()
        for name in ("k", "v"):
            self.register_buffer(name, None if rows is None else torch.zeros(2, 2, rows, 8))
        self.register_buffer("first", torch.randn(2, 1, 16))
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        self.mean.mul_(0.9).add_(x.mean((0, 1)))
        y, (self.k, self.v) = super().forward(x, None if self.k is None else (self.k, self.v))
        return torch.cat([self.first, y + self.mean], 1), (self.k, self.v)


@pytest.mark.parametrize("rows", [None, 0, 3])
@torch.no_grad()
def test_buffers_of_the_module_that_are_replaced(rows: int | None) -> None:
    """Two prompts of different lengths, and one whose last rows are taken back: a graph for the second prompt, none else."""
    model = Registered(rows).eval()
    other = copy.deepcopy(model)
    begin, fn = dict(model.named_buffers()), compiled(model)
    for prompt in (5, 9):
        for one in (model, other):
            one.k, one.v = (begin.get(name) for name in ("k", "v"))
        for step in range(8):
            both(lambda x, _: (fn(x, None)), lambda x, _: other(x, None), torch.randn(2, 1 if step else prompt, 16), (0, 0))
            for one in (model, other) if step == 5 else ():
                one.k, one.v = one.k[:, :, :-2], one.v[:, :, :-2]
        is_whole(2) if prompt == 5 else None
    assert counters["stats"]["unique_graphs"] == 3 and not fxpass.reports()[-1].outside


class RowsLast(Attention):
    """[B, H, D, s]: what the prompt gives is a view, along whose dims no stride is 1 but that of D."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        k, v = k.mT, v.mT
        if past is not None:
            k, v = torch.cat([past[0], k], -1), torch.cat([past[1], v], -1)
        return self.attend(q, k.mT, v.mT), (k, v)


def test_a_stride_of_one_that_moves_costs_a_graph() -> None:
    model = RowsLast().eval()
    decode(model, compiled(model), 8)
    is_whole(3)
    assert counters["stats"]["unique_graphs"] == 3 and "buffer(" in fxpass.reports()[1].after


class Enlarged(Attention):
    """A cache of whole pages; where it is full, its rows are copied into a larger one."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[torch.Tensor] = []
        self.end = 0

    def room(self, i: int, new: torch.Tensor) -> torch.Tensor:
        end = self.end + new.shape[2]
        if len(self.pages) <= i:
            self.pages.append(new.new_zeros(*new.shape[:2], 8, new.shape[3]))
        elif end > self.pages[i].shape[2]:
            larger = new.new_zeros(*new.shape[:2], 8 * ((end + 7) // 8), new.shape[3])
            larger[:, :, : self.end] = self.pages[i][:, :, : self.end]
            self.pages[i] = larger
        return self.pages[i]

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        end = self.end + x.shape[1]
        for i, new in enumerate((k, v)):
            self.room(i, new)[:, :, self.end : end] = new
        self.end = end
        return self.attend(q, *(page[:, :, :end] for page in self.pages)), self.pages


@torch.no_grad()
def test_a_cache_that_is_copied_into_a_larger_one() -> None:
    """The steps are static; the one that enlarges the cache runs as in stock, in one graph for all sizes."""
    model = Enlarged().eval()
    other, fn = copy.deepcopy(model), compiled(model)
    with pytest.warns(fxpass.KvfixWarning, match="KV115"), parts_compiled(least=64) as made:
        for step in range(40):
            both(lambda x, _: fn(x, None), lambda x, _: other(x, None), torch.randn(2, 1 if step else 5, 16), (0, 0))
    assert counters["stats"]["unique_graphs"] == 3 and made.count("core") <= 2
    assert all(site.decision == "rewritten" for report in fxpass.reports()[:2] for site in report.sites)


WIDTH = 8


class Window(Attention):
    """Of what was joined the last rows are read, and kept."""

    def join(self, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat([past, new], 2)[:, :, -WIDTH:]


class WindowKept(Attention):
    """All is read, and the last rows are kept, as transformers does."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        y, kept = super().forward(x, past)
        return y, tuple(t[:, :, -WIDTH:] for t in kept)


class WindowBefore(Attention):
    def join(self, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat([past[:, :, 1 - WIDTH :], new], 2)


class WindowIf(Attention):
    """The first two rows stay."""

    def join(self, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([past, new], 2)
        return torch.cat([joined[:, :, :2], joined[:, :, 2 - WIDTH :]], 2) if joined.shape[2] > WIDTH else joined


class WindowOfTheLeast(Attention):
    """As many rows as there are, or as the window has: Dynamo makes one number of both."""

    def join(self, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([past, new], 2)
        return joined[:, :, -min(WIDTH, joined.shape[2]) :]


class WindowFromTheMost(Attention):
    """The same, by where it starts, of memory of its own."""

    def join(self, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([past, new], 2)
        return joined[:, :, max(0, joined.shape[2] - WIDTH) :].contiguous()


@pytest.mark.parametrize("kind", [Window, WindowKept, WindowBefore, WindowIf, WindowOfTheLeast, WindowFromTheMost])
def test_a_window_while_it_fills_and_when_it_is_full(kind: type[nn.Module]) -> None:
    """No more graphs than stock makes, or one where that has one for both; each of them one static core."""
    model = kind().eval()
    decode(model, torch.compile(model, backend="eager"), 14)
    graphs = counters["stats"]["unique_graphs"]
    torch._dynamo.reset()
    counters.clear()
    fxpass.reset()
    decode(model, compiled(model), 14)
    assert counters["stats"]["unique_graphs"] <= graphs + (kind is WindowOfTheLeast)
    moving = [report for report in fxpass.reports() if report.symbols]
    assert any("buffer(" in report.after for report in moving)
    for report in moving:
        assert [name for name, *_ in report.parts if name != "prologue"] == ["core"], report
        assert not report.outside and not report.unbuffered, report
    assert "buffer(" not in moving[-1].after


class Kept:
    """The buffers that are made, and the largest bytes of them at any time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[weakref.ref[torch.Tensor]] = []
        self.most = 0
        allocate = growth.Growth._allocate

        def see(one: growth.Growth, *args: Any) -> None:
            allocate(one, *args)
            known = {id(ref()) for ref in self.made}
            self.made += [weakref.ref(t) for t in one._memories() if id(t) not in known]
            self.most = max(self.most, sum(b.nbytes for ref in self.made if (b := ref()) is not None))

        monkeypatch.setattr(growth.Growth, "_allocate", see)

    @property
    def alive(self) -> int:
        gc.collect()
        return sum(ref() is not None for ref in self.made)


@torch.no_grad()
def test_buffers_go_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for keys and values, at most twice as large as these, however many conversations there are."""
    kept, model = Kept(monkeypatch), Attention().eval()
    fn = torch.compile(model, backend="kvfix", options={"compiler": "eager", "capacity": 4})
    pasts: list[Any] = [None] * 3
    for step in range(40):
        for who in range(3) if step > 5 else (0, 0, 1, 2)[: 1 + 3 * (step == 5)]:
            _, pasts[who] = fn(torch.randn(2, 1 if pasts[who] else 5, 16), pasts[who])
    longest = max(sum(t.nbytes for t in past) for past in pasts)
    assert kept.alive == 2 and kept.most <= 2 * longest
    report = fxpass.reports()[-1]
    ((of, kind, size), _) = report.buffers
    assert (of, kind, size) == ("past[0]", "f32[2, 2, 64, 8]", 2 * 2 * 64 * 8 * 4)
    assert "for past[0]" in str(report)
    del fn, model
    torch.compiler.reset()
    assert not kept.alive


@torch.no_grad()
def test_graphs_of_a_model_share_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of one row and of several in turn, and what is cropped in between: many graphs, which go on from one another."""
    kept, model, filled = Kept(monkeypatch), Attention().eval(), []
    put = growth.Growth._put
    monkeypatch.setattr(growth.Growth, "_put", lambda one, into, *args: filled.append(len(into)) or put(one, into, *args))
    fn = torch.compile(model, backend="kvfix", options={"compiler": "eager", "capacity": 8})
    mine: Any = None
    other: Any = None
    cropped = 0
    for step in range(60):
        x = torch.randn(2, 5 if step == 0 else (1, 4, 1, 2)[step % 4], 16)
        mine, other = both(fn, model, x, (mine, other), atol=1e-5, rtol=1e-5)
        if step % 5 == 4:
            mine, other = ([t[:, :, :-3] for t in past] for past in (mine, other))
            mine, other = tuple(mine), tuple(other)
            cropped += 1
    assert len({report.after for report in fxpass.reports() if "buffer(" in report.after}) > 1
    assert kept.alive == 2 and kept.most <= 2 * sum(t.nbytes for t in mine)
    assert sum(map(bool, filled)) <= cropped + 6  # at first, at each capacity, and after each crop


@torch.no_grad()
def test_what_does_not_grow_keeps_no_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, model = Kept(monkeypatch), Attention().eval()
    fn = compiled(model)
    with pytest.warns(fxpass.KvfixWarning, match="KV202"):
        for length in (5, 9, 3, 20, 14, 30, 7, 25, 11):
            fn(torch.randn(2, 1, 16), (torch.randn(2, 2, length, 8), torch.randn(2, 2, length, 8)))
    assert kept.made and not kept.alive and not fxpass.reports()[-1].buffers


@pytest.mark.parametrize("capacity, made", [(100, {"f32[2, 2, 100, 8]"}), (16, {"f32[2, 2, 16, 8]", "f32[2, 2, 32, 8]"})])
def test_the_least_capacity_is_an_option(capacity: int, made: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = Attention().eval(), set()
    buffered = fxpass.report.store.buffered

    def see(report: fxpass.Report, *args: Any) -> None:
        buffered(report, *args)
        seen.update(kind for _, kind, _ in report.buffers)

    monkeypatch.setattr(fxpass.report.store, "buffered", see)
    decode(model, torch.compile(model, backend="kvfix", options={"compiler": "eager", "capacity": capacity}), 20)
    assert seen == made
    is_whole()


class Turned(Attention):
    """[B, s, H, D] is kept, a view of what was joined."""

    def join(self, past: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        return torch.cat([past.transpose(1, 2), new], 2)

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        y, kept = super().forward(x, past)
        return y, tuple(t.transpose(1, 2) for t in kept)


class Sliced(Attention):
    """All that was seen, its first and its last rows: slices of a result, which may be written through."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        y, (k, v) = super().forward(x, None if past is None else past[:2])
        scaled = k * 2
        seen = nn.functional.dropout(scaled, 0.5, False)
        return y, (k, v, scaled, seen[:, :, -1:], seen[:, :, :2])


class Hypotheses(Attention):
    """The keys and values of each row of the batch by themselves, parts of one tensor: stacked before the next step."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        rows = x.shape[0]
        y, (k, v) = super().forward(x, past and (torch.stack(past[:rows]), torch.stack(past[rows:])))
        return y, (*(k[i] for i in range(rows)), *v.unbind(0))


class Halves(Attention):
    """Keys and values are one tensor, which is returned along with its halves."""

    def forward(self, x: torch.Tensor, past: Any) -> Any:
        q, k, v = self.heads(x)
        both = torch.cat([k, v], 1)
        both = both if past is None else torch.cat([past[0], both], 2)
        k, v = both.chunk(2, 1)
        return self.attend(q, k, v), (both, k, v, both.detach(), both, *torch.var_mean(both, 1))


@pytest.mark.parametrize("kind", [Turned, Sliced, Hypotheses, Halves])
@torch.no_grad()
def test_results_that_are_views_of_others(kind: type[nn.Module]) -> None:
    model = kind().eval()
    fn = torch.compile(model, backend="kvfix", options={"compiler": "eager", "capacity": 8})
    mine: Any = None
    other: Any = None
    for step in range(12):
        x = torch.randn(2, 5 if step == 0 else 1, 16)
        (y, mine), (wanted, other) = fn(x, mine), model(x, other)
        torch.testing.assert_close(y, wanted, atol=1e-5, rtol=1e-5)
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
            assert (a.stride(), a.storage_offset()) == (b.stride(), b.storage_offset())
            assert a._is_view() == b._is_view() and a.untyped_storage().nbytes() == b.untyped_storage().nbytes()
            for t in (a, b):
                t[:, :, -1:].mul_(0.5)
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    is_whole()


ALIASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "to": lambda t: t.to(torch.float32),
    "contiguous": lambda t: t.contiguous(),
    "detached": lambda t: t.detach(),
    "all of these": lambda t: t.float().detach().contiguous().type_as(t),
    "not dropped out": lambda t: nn.functional.dropout(t, 0.5, False),
    "viewed": lambda t: t.view(t.shape),
    "sliced": lambda t: t.contiguous()[:, :, :],
}


@pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)
@torch.no_grad()
def test_a_result_is_a_view_where_it_is_one_in_eager(alias: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = joined_by(lambda past, new: alias(torch.cat([past, new], 2)))
    fn = compiled(model)
    mine: Any = None
    other: Any = None
    for step in range(5):
        mine, other = both(fn, model, torch.randn(2, 5 if step == 0 else 1, 16), (mine, other), atol=1e-5, rtol=1e-5)
        assert step == 0 or [t._is_view() for t in mine] == [t._is_view() for t in other]
    is_whole()


FILLED: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cat": lambda kept, new: torch.cat([kept, new], 2),
    "concat": lambda kept, new: torch.concat([kept, new], 2),
    "out": lambda kept, new: torch.cat([kept, new], 2, out=kept.new_empty(longer_by(kept, new))),
    "cast": lambda kept, new: torch.cat([kept.double(), new.double()], 2).to(new.dtype),
    "scaled": lambda kept, new: torch.cat([kept * 0.5, new], 2),
    "turned": lambda kept, new: torch.cat([kept.movedim(2, 0), new.movedim(2, 0)]).movedim(0, 2),
    "in pieces": lambda kept, new: into(kept.new_empty(longer_by(kept, new)), kept, new),
}


@pytest.mark.parametrize("join", FILLED.values(), ids=FILLED)
def test_a_window_that_is_full_gets_no_buffer_in_vain(join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """The rows that stay are joined in any way: the result is as long as the past, on each call."""
    model = joined_by(lambda past, new: join(past[:, :, -min(past.shape[2], WIDTH - 1) :], new))
    decode(model, compiled(model), 14)
    report = fxpass.reports()[-1]
    assert "buffer(" not in report.after and not report.notes and not report.outside, report
    assert counters["stats"]["unique_graphs"] <= 4
