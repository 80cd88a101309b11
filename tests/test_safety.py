"""What kvfix must not touch it leaves alone, with eager's numbers and a word about it."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from small_models import (
    CACHES,
    CAPACITY,
    ROWS,
    WIDTH,
    Attention,
    Custom,
    ItemCache,
    StartPos,
    breaks,
    kvfix,
    largest_places,
    leaves,
    median,
    most_common,
    rolled_flat,
    same_step,
    steps,
)
from torch import Tensor

import fxpass
from fxpass import KvfixError, KvfixWarning, api, backend

EVERY_CACHE = pytest.mark.parametrize("kind", list(CACHES))


@EVERY_CACHE
@torch.no_grad()
def test_past_capacity(kind: str):
    """The model's own assertion, with its own message, and nothing written: bounds checks have become guards."""
    model, cache = Attention(), CACHES[kind](capacity=6)
    compiled, eager_cache = kvfix(model), copy.deepcopy(cache)
    inputs = steps(prompt=4, decoded=3)
    for x in inputs[:3]:
        same_step("within", model, compiled, x, eager_cache, cache)
    before = cache.state()
    for _ in range(2):
        with pytest.raises(AssertionError) as expected:
            model(inputs[3], eager_cache)
        with pytest.raises(AssertionError) as found:
            compiled(inputs[3], cache)
        assert str(found.value) == str(expected.value) == "7 rows do not fit"
        assert all(torch.equal(a, b) for a, b in zip(cache.state(), before, strict=True))


@torch.no_grad()
def test_a_row_past_capacity_is_dropped():
    """Without an assertion a slice past the end is empty and takes nothing; a write by index would fail instead."""
    model, eager = StartPos(), StartPos()
    compiled, x = kvfix(model), steps()[1]
    for position in (0, 1, 2, CAPACITY - 1):
        torch.testing.assert_close(compiled(x, position), eager(x, position), rtol=1e-6, atol=1e-6)
    before = model.keys.clone(), model.values.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KvfixWarning)
        torch.testing.assert_close(compiled(x, CAPACITY), eager(x, CAPACITY), rtol=1e-6, atol=1e-6)
    assert torch.equal(model.keys, before[0]) and torch.equal(model.values, before[1])


@torch.no_grad()
def test_two_rows_in_one_place():
    """Two rows do not fit in the one that is left: the error is that of Dynamo with any backend, nothing is written."""
    x = torch.randn(ROWS, 2, WIDTH)
    said = []
    for reference in ("eager", "kvfix"):
        torch._dynamo.reset()
        model = StartPos()
        compiled = kvfix(model) if reference == "kvfix" else torch.compile(model, backend="eager")
        for position in (0, 1, 2, 5):
            compiled(x, position)
        before = model.keys.clone(), model.values.clone()
        with pytest.raises(RuntimeError, match="expand") as raised:
            compiled(x, CAPACITY - 1)
        said.append((type(raised.value), str(raised.value)))
        assert torch.equal(model.keys, before[0]) and torch.equal(model.values, before[1])
    assert said[0] == said[1]


def test_with_grad_enabled():
    """Autograd's semantics are eager's: the graph is handed on as it is, says so, and backward works."""
    model, cache = Attention(), ItemCache()
    compiled, inputs = kvfix(model), steps(decoded=2)
    eager, eager_cache = copy.deepcopy(model), ItemCache()
    with pytest.warns(KvfixWarning, match="grad is enabled and an input requires grad"):
        found = compiled(inputs[0], cache)
    expected = eager(inputs[0], eager_cache)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found.sum().backward()
    expected.sum().backward()
    for mine, theirs in zip(model.parameters(), eager.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-6)
    (report,) = fxpass.reports()
    assert "grad is enabled" in report.unfit and report.rewritten == 0 and "grad is enabled" in str(report)


@torch.no_grad()
def test_training_with_dropout():
    """Dropout in attention has no masked form with the same random numbers: refused, and eager's numbers per seed."""
    model, cache = Attention(dropout=0.5).train(), ItemCache()
    compiled, eager_cache = kvfix(model), copy.deepcopy(cache)
    inputs = steps(decoded=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, x in enumerate(inputs):
            torch.manual_seed(i)
            expected = model(x, eager_cache)
            torch.manual_seed(i)
            torch.testing.assert_close(compiled(x, cache), expected, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(cache.state(), eager_cache.state(), strict=True))
    said = [str(w.message) for w in caught if issubclass(w.category, KvfixWarning)]
    assert len(said) == 1 and "attention with dropout" in said[0], said
    reads = [s for s in fxpass.reports()[-1].sites if s.kind == "read"]
    assert [s.decision for s in reads] == ["refused", "refused"]


@torch.no_grad()
def test_a_checked_number_of_data():
    """Dynamo captures the number of an `item` as a symbol without a value: nothing about it can be decided."""

    def step(keys: Tensor, x: Tensor, start: int) -> Tensor:
        positive = (x > 0).sum().item()
        torch._check(positive <= CAPACITY)
        keys[:, start : start + 1] = x
        return keys[:, : start + 1].sum(1) * positive

    compiled, mine, eager = kvfix(step), torch.zeros(ROWS, CAPACITY), torch.zeros(ROWS, CAPACITY)
    with torch._dynamo.config.patch(capture_scalar_outputs=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", KvfixWarning)
        for start in range(4):
            x = torch.randn(ROWS, 1)
            torch.testing.assert_close(compiled(mine, x, start), step(eager, x, start))
    assert torch.equal(mine, eager)


class Data(StartPos):
    """Writes to its buffers past autograd."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:  # type: ignore[override]
        start = int(index)
        self.keys.data[:, 0, start : start + x.shape[1]] = x[..., :4]
        index.data += x.shape[1]
        return self.keys[:, 0, : int(index)].sum(1)


@torch.no_grad()
def test_writes_to_data():
    model, eager = Data(), Data()
    compiled, mine, theirs = kvfix(model), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    for x in steps():
        torch.testing.assert_close(compiled(x, mine), eager(x, theirs), rtol=1e-6, atol=1e-6)
        assert torch.equal(model.keys, eager.keys) and torch.equal(mine, theirs)
    assert any(r.rewritten for r in fxpass.reports()) and not any(r.unfit for r in fxpass.reports())


@torch.no_grad()
def test_active_autocast():
    model, cache = Attention(), ItemCache()
    compiled, eager_cache = kvfix(model), copy.deepcopy(cache)
    with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for x in steps(decoded=3):
            same_step("autocast", model, compiled, x, eager_cache, cache)
    assert any("autocast is enabled" in str(w.message) for w in caught)
    assert "autocast" in fxpass.reports()[-1].unfit


def with_autocast_set(x: Tensor) -> Tensor:
    torch.set_autocast_enabled("cpu", True)
    torch.set_autocast_dtype("cpu", torch.bfloat16)
    product = x @ x.mT
    torch.set_autocast_enabled("cpu", False)
    torch.clear_autocast_cache()
    return product.float().sum(-1)


def with_a_default_dtype(x: Tensor) -> Tensor:
    torch.set_default_dtype(torch.float64)
    scale = torch.full((1,), 0.1)
    torch.set_default_dtype(torch.float32)
    return (x.sum(-1) * scale).float()


SAID = rf"KV013 .* set_.*, before {re.escape(__file__)}:\d+|KV002" + ("|KV301" if torch.__version__ < "2.12" else "")
"""What is said of a setting. Dynamo of torch 2.11 does not trace those of autocast: the graph breaks."""


@pytest.mark.parametrize("work", [with_autocast_set, with_a_default_dtype])
@torch.no_grad()
def test_a_graph_that_changes_a_setting(work: Callable[[Tensor], Tensor]):
    """What is traced holds the ops alone, so it would run without the setting."""

    def step(keys: Tensor, x: Tensor, end: int) -> Tensor:
        keys[:, end : end + 1] = x
        return work(keys[:, : end + 1])

    compiled, mine, eager = kvfix(step), torch.zeros(2, CAPACITY, 3), torch.zeros(2, CAPACITY, 3)
    with pytest.warns(KvfixWarning, match=SAID):
        for end in range(3, 6):
            x = torch.rand(2, 1, 3)
            assert torch.equal(compiled(mine, x, end), step(eager, x, end)) and torch.equal(mine, eager)


def vmapped(x: Tensor, keys: Tensor) -> Tensor:
    return torch.vmap(lambda row: row * 2)(x)


def vmapped_read(x: Tensor, keys: Tensor) -> Tensor:
    return torch.vmap(lambda row: row.sum())(keys)


def gradient(x: Tensor, keys: Tensor) -> Tensor:
    return torch.func.grad(lambda row: (row * row).sum())(x)


def condition(x: Tensor, keys: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda k: k.sum(1), lambda k: k.sum(1) * 2, (keys,))


TRANSFORMED = {vmapped: "torch.func", vmapped_read: "torch.func", gradient: "torch.func", condition: "cond"}


@pytest.mark.parametrize("transform", TRANSFORMED, ids=lambda f: f.__name__)
@torch.no_grad()
def test_functions_of_functions(transform: Callable[[Tensor, Tensor], Tensor]):
    """Beside a slice at a position, of which it may be given what is read."""

    def step(keys: Tensor, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        end = index[0].item() + 1
        keys[:, end - 1 : end] = x
        index.add_(1)
        return transform(x, keys[:, :end]), keys[:, :end].sum(1)

    compiled = kvfix(step)
    mine, eager = ((torch.zeros(ROWS, CAPACITY), torch.zeros(1, dtype=torch.long)) for _ in range(2))
    with pytest.warns(KvfixWarning, match=TRANSFORMED[transform]):
        for _ in range(5):
            x = torch.randn(ROWS, 1)
            for found, expected in zip(compiled(mine[0], x, mine[1]), step(eager[0], x, eager[1]), strict=True):
                assert type(found) is Tensor
                torch.testing.assert_close(found, expected)
            assert all(torch.equal(a, b) for a, b in zip(mine, eager, strict=True))
    assert TRANSFORMED[transform] in fxpass.reports()[-1].unfit


NOT_REWRITABLE = {
    largest_places: "aten.topk",
    median: "aten.median",
    leaves: "depends on the position leaves the graph",
    rolled_flat: "of a flattened tensor",
    most_common: "aten.mode",
}


@pytest.mark.parametrize("finish", NOT_REWRITABLE, ids=lambda f: f.__name__.strip("_"))
@torch.no_grad()
def test_not_rewritable(finish: Callable[[Tensor, Tensor], Tensor]):
    """Eager's numbers, one warning a graph that names the reason and the line of the read."""
    model, cache = Custom(finish), ItemCache()
    compiled, eager_cache = kvfix(model), copy.deepcopy(cache)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for x in steps():
            same_step(finish.__name__, model, compiled, x, eager_cache, cache)
    said = [str(w.message) for w in caught if issubclass(w.category, KvfixWarning)]
    assert len(said) == 1, said
    assert NOT_REWRITABLE[finish] in said[0]
    assert re.search(r"small_models\.py:\d+: read at cache\.index\[0\] \+ 1: ", said[0]), said[0]
    assert breaks() == 0
    refused = [s for s in fxpass.reports()[-1].sites if s.decision == "refused"]
    assert refused and all(NOT_REWRITABLE[finish] in s.reason and "small_models.py:" in s.source for s in refused)


@pytest.mark.parametrize("finish", NOT_REWRITABLE, ids=lambda f: f.__name__.strip("_"))
@torch.no_grad()
def test_strict_raises(finish: Callable[[Tensor, Tensor], Tensor]):
    model, cache = Custom(finish), ItemCache()
    compiled = kvfix(model, strict=True)
    inputs = steps()
    compiled(inputs[0], cache)
    with pytest.raises(Exception) as raised:
        compiled(inputs[1], cache)
    assert NOT_REWRITABLE[finish] in str(raised.value)
    assert _caused_by(raised.value, KvfixError), repr(raised.value)


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__ or getattr(error, "inner_exception", None)
    return False


@torch.no_grad()
def test_strict_lets_the_rewritable_pass():
    model, cache = Attention(), ItemCache()
    compiled, eager_cache = kvfix(model, strict=True), copy.deepcopy(cache)
    for x in steps():
        same_step("strict", model, compiled, x, eager_cache, cache)


@torch.no_grad()
def test_models_without_a_cache_are_compiled_as_they_are():
    """No site, no warning, no change of numbers."""
    linear, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    compiled: Any = kvfix(linear, "aot_eager")
    assert torch.equal(compiled(x), linear(x))
    (report,) = fxpass.reports()
    assert (report.sites, report.unfit) == ([], "")


def test_a_fault_of_the_pass_costs_a_warning_not_the_call(monkeypatch: pytest.MonkeyPatch) -> None:

    def broken(*args: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(api, "rewrite_graph", broken)
    compiled = torch.compile(lambda x: x * 2, backend="kvfix", options={"compiler": "eager"})
    with torch.no_grad(), pytest.warns(fxpass.KvfixWarning, match="the pass failed: KeyError: 'a bug'"):
        assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 2.0))


def test_strict_says_where_a_fault_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:

    fault = KeyError("a bug")
    monkeypatch.setattr(api, "rewrite_graph", mock.Mock(side_effect=fault))
    compiled = torch.compile(lambda x: x * 2, backend="kvfix", options={"compiler": "eager", "strict": True})
    with torch.no_grad(), pytest.raises(Exception, match="the pass failed: KeyError") as raised:
        compiled(torch.ones(3))
    error: BaseException | None = raised.value
    while error is not None and error is not fault:
        error = error.__cause__ or error.__context__
    assert error is fault


def runs_with_a_bug() -> None:
    """All steps run as they are, with a warning."""
    model, cache, eager = Attention(), ItemCache(), ItemCache()
    compiled = kvfix(model)
    with torch.no_grad(), pytest.warns(fxpass.KvfixWarning, match="the pass failed: KeyError: 'a bug'"):
        for x in steps():
            torch.testing.assert_close(compiled(x, cache), model(x, eager))
    assert all(torch.equal(a, b) for a, b in zip(cache.state(), eager.state(), strict=True))


def test_a_fault_in_following_the_index_costs_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a read of it on each call."""
    monkeypatch.setattr(backend.Advance, "of", mock.Mock(side_effect=KeyError("a bug")))
    runs_with_a_bug()


def test_a_fault_of_the_hand_off_costs_a_warning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph runs as it was before it was rewritten."""

    def broken(plan: backend.Plan, **how: object) -> None:
        gm = plan.gm
        gm.graph.find_nodes(op="placeholder")[0].replace_all_uses_with(gm.graph.find_nodes(op="placeholder")[1])
        raise KeyError("a bug")

    monkeypatch.setattr(backend, "assemble", broken)
    runs_with_a_bug()


@pytest.mark.parametrize("guarded", [True, False])
@torch.no_grad()
def test_a_hook_that_is_put_on_later(guarded: bool) -> None:
    """It is seen where torch guards on hooks, which it does not do by default."""

    class Counted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.at = torch.nn.Linear(4, 4), 0
            self.register_buffer("k", torch.zeros(2, 16, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.k[:, self.at] = self.linear(x)
            self.at += 1
            return self.k[:, : self.at].sum(1)

    mine = Counted()
    eager = copy.deepcopy(mine)
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=not guarded):
        compiled = kvfix(mine)
        for call in range(6):
            if call == 4:
                for model in (mine, eager):
                    model.linear.register_forward_hook(lambda module, args, result: result * 2)
            x = torch.rand(2, 4)
            is_equal = torch.allclose(compiled(x), eager(x), atol=1e-6)
            assert is_equal == (guarded or call < 4)
