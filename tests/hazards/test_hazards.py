"""What has gone wrong before, one test a hazard; the numbers are names and nothing more.

Each test runs twice where that is possible: as it is, where everything must be right, and with the one line that
handles the hazard taken out, where it must go wrong. So none of these tests can pass by looking away.
"""

from __future__ import annotations

import copy
import importlib
import types
import warnings
from typing import Any

import pytest
import torch
from handled import HANDLED, check
from small_models import (
    CAPACITY,
    HEADS,
    ROWS,
    WIDTH,
    Attention,
    BoundsCache,
    Cache,
    ItemCache,
    StartPos,
    breaks,
    graphs,
    kvfix,
    same_step,
    steps,
)
from torch import Tensor, fx
from torch._dynamo.utils import counters
from torch.fx.experimental.symbolic_shapes import free_symbols
from torch.fx.passes.split_module import split_module

import fxpass
from fxpass import api, backend
from fxpass.analysis import extents
from fxpass.errors import KvfixWarning
from fxpass.execute.compilation import regions
from fxpass.execute.partition.split import Part
from fxpass.execute.plans import cores
from fxpass.graph import aliases
from fxpass.index_tensors import mirror
from fxpass.rewriting import sweep
from fxpass.rewriting.nodes import twins
from fxpass.rewriting.nodes.builder import Builder

cut = importlib.import_module("fxpass.execute.partition.split")  # their packages have functions of these names
normal_form = importlib.import_module("fxpass.graph.normal_form")
aten = torch.ops.aten


@torch.no_grad()
def decode(model: Any, cache: Any, inputs: list[Tensor] | None = None) -> None:
    """All steps on both sides; raises where outputs or buffers differ."""
    compiled, eager_cache = kvfix(model), copy.deepcopy(cache)
    for i, x in enumerate(inputs or steps()):
        same_step(f"step {i}", model, compiled, x, eager_cache, cache)


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "unchecked"])
@HANDLED
def test_1_in_place_ops_without_users_stay(handled: bool, checked: bool, monkeypatch: pytest.MonkeyPatch):
    """Dead code elimination by users alone drops the writes that a rewrite has made.

    Without its handling the post-conditions notice, and without these the numbers are wrong.
    """
    if not handled:
        stock = aliases.is_impure
        monkeypatch.setattr(aliases, "is_impure", lambda n: n.target is not aten.index_copy_.default and stock(n))
    if not checked:
        monkeypatch.setattr(api, "check_graph", lambda *_, **__: None)
    if handled or not checked:
        check(handled, lambda: decode(Attention(), ItemCache()))
    else:
        with pytest.warns(KvfixWarning, match="the mutated inputs changed: .*keys.*values"):
            decode(Attention(), ItemCache())
        assert "the mutated inputs changed" in fxpass.reports()[-1].unfit


class _ViewsForCopies:
    """``torch.ops.aten``, whose ``clone`` does not copy."""

    def __getattr__(self, name: str) -> Any:
        return types.SimpleNamespace(default=aten.alias.default) if name == "clone" else getattr(aten, name)


class UsesWhereItBegan(Attention):
    """Does arithmetic on the old position after the index has moved on."""

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        start = cache.length
        return super().forward(x, cache) + start * 2


@HANDLED
def test_2_positions_are_snapshots(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """``idx[0]`` is a view: without a copy where it is read, ``start`` is one too many after ``idx[0] = end``."""
    if not handled:
        monkeypatch.setattr(twins, "aten", _ViewsForCopies())
    check(handled, lambda: decode(UsesWhereItBegan(), ItemCache()))


class Growing(Attention):
    """Is given the whole series so far, of which only what is new is run; as in forecasting models."""

    def forward(self, series: Tensor, cache: Cache) -> Tensor:  # type: ignore[override]
        seen = cache.length
        x = self.features(series)[:, seen:]
        assert seen == 0 or x.shape[1] == 1, "one row at a time"
        return super().forward(x, cache) + series.mean(1, keepdim=True)

    def features(self, series: Tensor) -> Tensor:
        return series * 2.0


def growing_steps() -> list[Tensor]:
    x = torch.cat(steps(), dim=1)
    return [x[:, : 4 + i].contiguous() for i in range(6)]


class Spectral(Growing):
    """Takes its new rows from a transform of the whole series: a longer, padded series would have another one."""

    def features(self, series: Tensor) -> Tensor:
        return torch.fft.fft(series, dim=1).real


def cuts(monkeypatch: pytest.MonkeyPatch) -> list[list[Part]]:
    """Filled with the parts of every graph that is cut."""
    seen: list[list[Part]] = []
    stock = cores.split

    def spy(*args: Any, **kwargs: Any) -> list[Part]:
        seen.append(stock(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(cores, "split", spy)
    return seen


def linears(parts: list[Part], static: bool) -> list[fx.Node]:
    """The linear layers in the static core, or outside of it."""
    nodes = [n for part in parts if part.static == static for n in part.gm.graph.nodes]
    return [n for n in nodes if n.target is aten.linear.default]


@HANDLED
def test_3_tails_of_growing_tensors_have_fixed_sizes(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """A growing series' new row is one row of the core, whatever the length; else the first layer is not in it."""
    if not handled:
        warnings.simplefilter("ignore", KvfixWarning)  # the layers that are outside are named
        monkeypatch.setattr(sweep, "rewrite_narrow", lambda site, b: None)
        monkeypatch.setattr(api, "copy_fixed_rows", lambda graph, bound: False)
    seen = cuts(monkeypatch)
    decode(Spectral(), ItemCache(), growing_steps())
    assert len(linears(seen[-1], static=True)) == (2 if handled else 1)
    assert len(linears(seen[-1], static=False)) == (0 if handled else 1)


@pytest.mark.inductor
def test_4_sizes_that_are_written_as_positions():
    """A guard ``T == s0 + 1`` makes Dynamo write the size T as a position; no part may ask Inductor to solve that.

    Given to Inductor as they come from Dynamo, such graphs fail with "expected s0 to have been codegen-ed".
    """
    model, cache = Growing(), ItemCache()
    compiled, eager_cache = kvfix(model, "inductor"), copy.deepcopy(cache)
    with torch.no_grad():
        for x in growing_steps():
            same_step("growing", model, compiled, x, eager_cache, cache, exact=False)
    assert (graphs(), breaks()) == (2, 0)


class Softmax(Attention):
    """Attention spelled out."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: bool) -> Tensor:
        scores = q @ k.transpose(-1, -2)
        if first:
            scores = scores + torch.full((q.shape[2], q.shape[2]), float("-inf")).triu(1)
        return scores.softmax(-1) @ v


@pytest.mark.parametrize("kept_dirty", [None, "key", "value"])
@pytest.mark.parametrize("filler", [float("nan"), float("inf"), float("-inf"), 1e30])
@pytest.mark.parametrize("kind", [Attention, Softmax])
def test_5_dirty_tails(kind: type[Attention], filler: float, kept_dirty: str | None, monkeypatch: pytest.MonkeyPatch):
    """Caches made with ``torch.empty`` hold anything past their end. Both K and V must be cleaned: NaN * 0 is NaN."""
    if kept_dirty is not None:
        stock = extents.Flow.fill

        def fill(self: Any, user: Any, operand: Any, dims: Any, value: Any) -> None:
            values = [user.args[2]] if user.target is aten.scaled_dot_product_attention.default else [user.args[1]]
            if (operand in values) != (kept_dirty == "value"):
                stock(self, user, operand, dims, value)

        monkeypatch.setattr(extents.Flow, "fill", fill)
    # 1e30 times a probability of 0 is 0; for the spelled-out softmax "key" stands for the scores
    harmless = filler == 1e30 and (kind is Attention or kept_dirty == "value")
    check(kept_dirty is None or harmless, lambda: decode(kind(), BoundsCache(fill=filler)))


class Causal(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, first: bool) -> Tensor:
        return super().attend(q, k, v, first=True)


@HANDLED
def test_6_causal_masks_are_aligned_top_left(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """``is_causal`` on a slice of a cache: query i of a chunk sees keys 0 to i. Odd, and kept; not bottom right."""
    if not handled:
        stock = Builder.attention_mask
        monkeypatch.setattr(Builder, "attention_mask", lambda self, e, mask, q, causal: stock(self, e, mask, q, False))
    inputs = [torch.randn(ROWS, 2, WIDTH) for _ in range(5)]
    check(handled, lambda: decode(Causal(), ItemCache(), inputs))
    if handled:
        assert fxpass.reports()[-1].rewritten >= 4


@torch.no_grad()
def test_7_bounds_are_kept_as_guards(monkeypatch: pytest.MonkeyPatch):
    """Past its capacity a slice is empty; a write by index has no such notion and fails, so guards keep it away."""
    rewritten: list[fx.GraphModule] = []
    stock = api.check_graph
    monkeypatch.setattr(api, "check_graph", lambda gm, *a, **k: (rewritten.append(gm), stock(gm, *a, **k)))
    model, eager, x = StartPos(), StartPos(), steps()[1]
    compiled = kvfix(model)
    for position in (0, 1, 2, CAPACITY - 1):
        torch.testing.assert_close(compiled(x, position), eager(x, position), rtol=1e-6, atol=1e-6)
    decode_graph = rewritten[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KvfixWarning)
        torch.testing.assert_close(compiled(x, CAPACITY), eager(x, CAPACITY), rtol=1e-6, atol=1e-6)

    def example(node: fx.Node) -> Any:
        value = node.meta["val"]
        return torch.randn([int(s) for s in value.shape]) if isinstance(value, Tensor) else CAPACITY

    unguarded = [example(n) for n in decode_graph.graph.nodes if n.op == "placeholder"]
    with pytest.raises(IndexError):
        decode_graph(*unguarded)


def bool_indices(gm: fx.GraphModule) -> list[str]:
    found = []
    for node in gm.graph.nodes:
        if "index" in str(node.target) and node.op == "call_function":
            indices = [i for i in node.all_input_nodes[1:] if isinstance(i.meta.get("val"), Tensor)]
            found += [node.name for i in indices if i.meta["val"].dtype is torch.bool]
    return found


def test_8_no_boolean_indices(monkeypatch: pytest.MonkeyPatch):
    """Boolean-mask ``index_put`` reads a count from the device and cannot be recorded: integer indices only."""
    seen: list[fx.GraphModule] = []
    stock = api.check_graph
    monkeypatch.setattr(api, "check_graph", lambda gm, *a, **k: (seen.append(gm), stock(gm, *a, **k)))
    decode(Attention(), BoundsCache())
    assert "index_copy_" in str(seen[-1].graph) and bool_indices(seen[-1]) == []

    def masked(buffer: Tensor, mask: Tensor, x: Tensor) -> Tensor:
        return buffer.index_put_((mask,), x)

    example = (torch.zeros(4), torch.tensor([True, False, True, False]), torch.ones(2))
    gm = torch.fx.experimental.proxy_tensor.make_fx(masked)(*example)
    assert bool_indices(gm)  # the check sees one where there is one


@torch.no_grad()
def test_10_guards_are_not_compiled(monkeypatch: pytest.MonkeyPatch):
    """The mirror runs from guards and from Dynamo's bytecode, where its Python would be compiled like any other."""

    def frames(read: Any) -> int:
        torch._dynamo.reset()
        counters.clear()
        monkeypatch.setattr(mirror, "read", read)
        model, cache = Attention(), ItemCache()
        compiled = kvfix(model)
        for x in steps():
            compiled(x, cache)
        assert graphs() >= 2
        return counters["frames"]["total"]

    stock = mirror.read
    traced = types.FunctionType(stock.__code__.replace(co_name="traced"), stock.__globals__)
    made = frames(stock)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the tests' coverage has marked the code, Dynamo begins a frame and gives it up
        assert made < frames(traced)


class Zeroed(Attention):
    """Keys and values of even rows are zero."""

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x)
        return q, torch.zeros_like(k), v


@HANDLED
def test_11_zero_rows_are_rows(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """Counting the rows that are not zero is not the length of a cache."""
    if not handled:

        def valid(self: Builder, extent: Any, device: torch.device) -> fx.Node:
            (read,) = extent.reads
            rows = self.call(aten.amax.default, self.call(aten.abs.default, read.args[0]), [0, 1, 3])
            return self.call(aten.gt.Scalar, rows, 0)

        monkeypatch.setattr(Builder, "valid", valid)
    check(handled, lambda: decode(Zeroed(), ItemCache()))
    assert fxpass.reports()[-1].unfit == "" and fxpass.reports()[-1].rewritten >= 4


class ReadsBack(Attention):
    """Static work on a buffer after it has been written, for the use of what grows and cannot be padded."""

    def forward(self, series: Tensor, cache: Cache) -> Tensor:  # type: ignore[override]
        seen = cache.length
        x = series[:, seen:]
        assert seen == 0 or x.shape[1] == 1, "one row at a time"
        out = super().forward(x, cache)
        return out + torch.fft.fft(series * cache.keys.sum(), dim=1).real.sum(1, keepdim=True)


@HANDLED
def test_12_in_place_ops_keep_their_order(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """The cut must not move a read of a buffer to before its write: operands alone do not tell."""
    if not handled:
        operands_only = lambda graph: {  # noqa: E731
            n: [i for i in n.all_input_nodes if i.op != "placeholder"]
            for n in graph.nodes
            if n.op not in ("placeholder", "output")
        }
        monkeypatch.setattr(cut, "dependencies", operands_only)
    check(handled, lambda: decode(ReadsBack(), ItemCache(), growing_steps()))
    if handled:
        assert [name for name, *_ in fxpass.reports()[-1].parts] == ["prologue", "core", "epilogue"]


@torch.autocast("cpu", enabled=False)
def _without_autocast(x: Tensor) -> Tensor:
    return x * 2


@torch.enable_grad()
def _with_grad(x: Tensor) -> Tensor:
    return x + 1


class Regions(Attention):
    """Switches autocast off and grad mode around small functions, as rotary embeddings do."""

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().project(x)
        return _without_autocast(q), _with_grad(k), v


def test_13_grad_and_autocast_regions(monkeypatch: pytest.MonkeyPatch):
    """Regions that change nothing are dropped: the graph as Dynamo gives it cannot be cut across them."""
    given: list[fx.GraphModule] = []
    stock = backend.prepare
    monkeypatch.setattr(backend, "prepare", lambda gm, *a: (given.append(copy.deepcopy(gm)), stock(gm, *a))[1])
    decode(Regions().requires_grad_(False), ItemCache())
    names = [n.name for n in given[-1].graph.nodes]
    assert "_enter_autocast" in names and "_set_grad_enabled" in names
    report = fxpass.reports()[-1]
    assert report.unfit == "" and report.refused == 0 and report.rewritten >= 4
    assert "autocast" not in report.after and "grad" not in report.after
    region = range(names.index("_enter_autocast"), names.index("_exit_autocast"))
    with pytest.raises(AssertionError):
        split_module(given[-1], None, lambda n: names.index(n.name) % 2 if names.index(n.name) in region else 0)


@HANDLED
def test_14_narrowed_rows_are_contiguous(handled: bool, monkeypatch: pytest.MonkeyPatch):
    """A row of a growing tensor has its strides: the core must be handed a copy that has not, or it starts later."""
    if not handled:
        warnings.simplefilter("ignore", KvfixWarning)  # the layers that are outside are named
        stock = sweep.rewrite_narrow
        monkeypatch.setattr(sweep, "rewrite_narrow", lambda site, b: (setattr(site, "shared", True), stock(site, b)))
        monkeypatch.setattr(api, "copy_fixed_rows", lambda graph, bound: False)
    seen = cuts(monkeypatch)
    decode(Spectral(), ItemCache(), growing_steps())
    assert len(linears(seen[-1], static=True)) == (2 if handled else 1)
    outside = linears(seen[-1], static=False)
    assert len(outside) == (0 if handled else 1)
    for node in outside:  # of a row that is fixed but for its strides
        row = node.args[0].meta["val"]
        assert row.shape == (ROWS, 1, WIDTH) and not free_symbols(row.shape) and free_symbols(row.stride())


@torch.no_grad()
def test_15_parts_have_shapes_of_their_own(monkeypatch: pytest.MonkeyPatch):
    """The core is compiled without a symbol, the rest in a shape environment of its own, nothing by Dynamo again."""
    seen: list[tuple[bool, list[Any]]] = []
    stock = regions.Region._compile

    def spy(self: Any, fakes: list[Any], mode: Any, bound: Any) -> Any:
        seen.append((self.part.static, fakes))
        outer = [n.meta["val"] for n in self.part.inputs if isinstance(n.meta["val"], Tensor)]
        assert all(mode is not v.fake_mode and mode.shape_env is not v.fake_mode.shape_env for v in outer)
        return stock(self, fakes, mode, bound)

    monkeypatch.setattr(regions.Region, "_compile", spy)
    decode(Growing(), ItemCache(), growing_steps())
    assert [static for static, _ in seen if static]
    for static, fakes in seen:
        symbols = set().union(*(free_symbols(v.shape) for v in fakes if isinstance(v, Tensor)))
        assert not static or not symbols
        assert static or all(str(s).startswith("s") for s in symbols)
    assert any(not static for static, _ in seen)
    assert graphs() == 2


class Ring(torch.nn.Module):
    """Shifts its rows by one on each call, next to a cache that is filled by position."""

    def forward(self, x: Tensor, cache: Cache) -> Tensor:
        cache.values[:, :, 1:] = cache.values[:, :, :-1].clone()
        cache.values[:, :, :1] = x.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        start = cache.length
        cache.keys[:, :, start : start + 1] = cache.values[:, :, :1] * 2
        cache.set(start + 1)
        return cache.keys[:, :, : start + 1].sum(2) + cache.values.sum(2)


@pytest.mark.parametrize(
    ("handled", "compiler"),
    [
        (True, "eager"),
        (False, "eager"),
        (True, "aot_eager"),
        pytest.param(True, "inductor", marks=pytest.mark.inductor),
    ],
)
@torch.no_grad()
def test_16_shifts_are_bitwise(handled: bool, compiler: str, monkeypatch: pytest.MonkeyPatch):
    """``x[1:] = x[:-1].clone()``: the copy must be made before the write, in every compiler; buffers to the bit."""
    if not handled:
        stock = normal_form.remove_dead

        def without_clones(graph: fx.Graph) -> None:
            for node in graph.nodes:
                if node.target is aten.clone.default:
                    node.replace_all_uses_with(node.args[0])
            stock(graph)

        monkeypatch.setattr(normal_form, "remove_dead", without_clones)
    model, cache = Ring(), ItemCache()

    def run() -> None:
        compiled, eager_cache = kvfix(model, compiler), copy.deepcopy(cache)
        for i, x in enumerate(steps(1, 5)):
            same_step(f"step {i}", model, compiled, x, eager_cache, cache)

    check(handled, run)
    if handled:
        assert fxpass.reports()[-1].rewritten >= 2
